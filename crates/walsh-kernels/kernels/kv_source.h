// Keys and values as an op is given them; `type` is the kind of their numbers.
inline float source_number(device const uchar *source, uint type, ulong index) {
    if (type == uint(KIND_F32)) return ((device const float *)source)[index];
    ushort bits = ((device const ushort *)source)[index];
    return type == uint(KIND_F16) ? half_to_float(bits) : as_type<float>(uint(bits) << 16);
}
