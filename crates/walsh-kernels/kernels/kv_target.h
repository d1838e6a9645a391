// Keys and values as an op gives them back; `type` is the kind of their numbers.
inline void put_number(device uchar *target, uint type, ulong index, float value) {
    if (type == uint(KIND_F32)) {
        ((device float *)target)[index] = value;
    } else {
        ((device ushort *)target)[index] = type == uint(KIND_F16) ? float_to_half(value) : ushort(narrow(value));
    }
}
