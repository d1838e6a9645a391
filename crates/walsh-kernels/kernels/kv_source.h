// Keys and values as an op is given them. `type`: 0 f32, 1 f16, 2 bf16.
inline float source_number(device const float *source, uint type, ulong index) {
    if (type == 0u) return source[index];
    ushort bits = ((device const ushort *)source)[index];
    return type == 1u ? half_to_float(bits) : as_type<float>(uint(bits) << 16);
}
