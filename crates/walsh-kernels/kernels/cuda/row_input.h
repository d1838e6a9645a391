// One row of the input in 8 bits, in the memory of a group: for each 32 numbers a head and two vectors of codes (see
// activations.h), each in a plane of its own.

// Where 32 numbers lie in a plane: lanes that read every block, or every fourth, meet no bank twice.
inline uint input_place(uint block) { return block ^ (block >> 3 & 3); }

// Four numbers to 8 bits, as row_input's planes have them.
inline void round_four(float4 numbers, uint four, bool live, uint *codes, uint plane) {
    Rounded rounded = round_eight(numbers);
    if (!live) return;
    uint part = four % 8, place = input_place(four / 8);
    codes[4 * ((1 + part / 4) * plane + place) + part % 4] = rounded.word;
    if (part == 0) ((float4 *)codes)[place] = {rounded.scale, rounded.sum, rounded.low, rounded.high};
}
