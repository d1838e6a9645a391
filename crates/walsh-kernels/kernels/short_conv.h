// output[t, c] = silu(sum of weight[c, j] . input[t - TAPS + 1 + j, c]), or the sum itself without SILU: a thread per channel of a row. The thread of a run's
// first row has those behind it that reach into the state, too, and leaves the next: nobody else touches it.
inline float conv_input(constant ShortConvArgs &args, device const float *input, device const float *state, int row, uint channel, bool begins) {
    // Rows before the run's first are the state's, the latest last.
    if (row >= 0) return input[ulong(row) * args.channels + channel];
    return begins ? 0.0f : state[ulong(TAPS - 1 + row) * args.channels + channel];
}

inline void short_conv(constant ShortConvArgs &args, device const float *input, device const float *weight, device const int *slot_mapping, device const uint *verdict, device float *state, device float *output, Position at) {
    uint row = at.x / args.pieces, channel = at.x % args.pieces * THREADS + at.index;
    if (verdict[0] != 0xffffffffu || channel >= args.channels) return;
    device const int *entry = slot_mapping + 8u * row;
    int first = entry[4], rows = entry[5], own = int(row) - first;
    if (own > 0 && own < TAPS - 1) return;
    bool begins = entry[6] == 0;
    device const float *x = input + ulong(uint(first)) * args.channels;
    device float *y = output + ulong(uint(first)) * args.channels;
    device float *kept = state + ulong(uint(entry[0])) * (TAPS - 1) * args.channels;
    float w[TAPS];
    UNROLL for (uint j = 0; j < TAPS; j++) w[j] = weight[channel * TAPS + j];
    int end = own == 0 ? min(rows, TAPS - 1) : own + 1;
    for (int t = own; t < end; t++) {
        float sum = 0.0f;
        UNROLL for (int j = 0; j < TAPS; j++) sum = fma(w[j], conv_input(args, x, kept, t - TAPS + 1 + j, channel, begins), sum);
        y[ulong(uint(t)) * args.channels + channel] = SILU ? silu(sum) : sum;
    }
    if (own > 0) return;
    float latest[TAPS];
    UNROLL for (int j = 0; j < TAPS - 1; j++) latest[j] = conv_input(args, x, kept, rows - TAPS + 1 + j, channel, begins);
    UNROLL for (int j = 0; j < TAPS - 1; j++) kept[ulong(uint(j)) * args.channels + channel] = latest[j];
}
