// Rows of a KV cache as fragments of m16n8k16 matrices of halves, out of the shared memory of a group.
//
// Positions are the rows of the first matrix, the numbers of a key its columns. Of each key a lane has chunks of CHUNK
// numbers, t % 4 of four side by side, so that it reads words; queries are laid out to match. Of values the numbers are the
// rows: a lane has HEAD_DIM / 8 of them side by side, of two positions at a time. Dense rows are read as `ldmatrix` has them.

// Where a byte of a tile of rows of BYTES bytes lies: 16 bytes change places within 128, so that what lanes read at once lies in
// different banks. Lanes read two rows of keys that follow each other, WIDE when each has 32 bytes of them, and every second
// row of values.
template <int BYTES, int WIDE> inline uint swizzled(uint at) {
    if constexpr (BYTES == 32) return at ^ (at >> 2 & 0x20u);
    if constexpr (BYTES == 64) return at ^ (at >> 2 & 0x60u);
    if constexpr (BYTES == 128) return at ^ (at >> 3 & 0x60u) ^ (WIDE ? at >> 3 & 0x10u : at >> 1 & 0x40u);
    return at;
}

// A row of a tile: eight rows on, rows change places alike, so that what is known of a lane's first one holds for all.
struct Row {
    uint base, offset;
};

// The bits of a where the mask has ones, else those of b.
inline uint selected(uint mask, uint a, uint b) {
    uint c;
    asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(c) : "r"(mask), "r"(a), "r"(b));
    return c;
}

inline uint subtract_halves(uint a, uint b) {
    uint c;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(c) : "r"(a), "r"(b));
    return c;
}

inline uint shared_word(uint at) {
    uint word;
    asm("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(at));
    return word;
}

inline uint load_short(uint at) {
    ushort bits;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(bits) : "r"(at));
    return bits;
}

inline uint load_byte(uint at) {
    uint bits;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(bits) : "r"(at));
    return bits;
}

// BYTES bytes of shared memory from a place that is a multiple of STEP. Rows change while the kernel runs: the loads stay where
// they stand between its waits.
template <int BYTES, int STEP, int ROW = 0, int WIDE = 0> inline void load_bytes(Row row, uint (&words)[(BYTES + 3) / 4]) {
    UNROLL for (int i = 0; i < BYTES / STEP; i++) {
        uint from = row.base + swizzled<ROW, WIDE>(row.offset + i * STEP);
        if constexpr (STEP == 16) {
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(words[4 * i]), "=r"(words[4 * i + 1]), "=r"(words[4 * i + 2]), "=r"(words[4 * i + 3])
                         : "r"(from));
        } else if constexpr (STEP == 8) {
            asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(words[2 * i]), "=r"(words[2 * i + 1]) : "r"(from));
        } else if constexpr (STEP == 4) {
            asm volatile("ld.shared.u32 %0, [%1];" : "=r"(words[i]) : "r"(from));
        } else if constexpr (STEP == 2) {
            uint bits = load_short(from);
            words[i / 2] = i % 2 == 0 ? bits : words[i / 2] | bits << 16;
        } else {
            uint bits = load_byte(from);
            words[i / 4] = i % 4 == 0 ? bits : words[i / 4] | bits << (8 * (i % 4));
        }
    }
}

// Whether a lane reads 32 bytes of a key at once: of each byte a number.
template <int BYTES> constexpr int WIDE_CHUNKS = BYTES == HEAD_DIM;

// COUNT codes of WIDTH bits from number `first`, a multiple of COUNT, of a plane OFFSET bytes behind the beginning of a row of
// ROW bytes.
template <int WIDTH, int COUNT, int OFFSET, int ROW>
inline void load_plane(Row row, uint first, uint (&words)[(COUNT * WIDTH + 31) / 32]) {
    enum : int { BITS = COUNT * WIDTH, WHOLE = BITS % 8 == 0, BYTES = WHOLE ? BITS / 8 : 4, STEP = WHOLE ? Divides<BYTES | ROW | OFFSET>::STEP : 1 };
    if constexpr (WHOLE) {
        uint got[(BYTES + 3) / 4];
        load_bytes<BYTES, STEP, ROW, WIDE_CHUNKS<ROW>>({row.base, row.offset + OFFSET + first * WIDTH / 8u}, got);
        UNROLL for (int i = 0; i < (BITS + 31) / 32; i++) words[i] = got[i];
    } else {
        static_assert(WHOLE || BITS <= 32, "codes that begin within a byte are few");
        uint bit = first * WIDTH;
        ulong bits = 0;
        UNROLL for (int i = 0; i < (BITS + 14) / 8; i++) bits |= ulong(load_byte(row.base + row.offset + OFFSET + bit / 8u + i)) << (8 * i);
        words[0] = uint(bits >> (bit % 8u));
    }
}

// Which of CHUNK numbers, in the order that their codes are decoded in, stand first and second in pair i. Codes of two and
// three bits are decoded by every second one, sixteen at a time.
template <int BITS, int COUNT> struct Pairs {
    enum : int { SPLIT = BITS < 4, GROUP = COUNT < 16 ? COUNT : 16 };
    static inline uint first(uint i) {
        if constexpr (!SPLIT) return 2u * i;
        uint within = i % (GROUP / 2), half = within / (GROUP / 4);
        return i / (GROUP / 2) * GROUP + within % (GROUP / 4) * 4u + half;
    }
    enum : int { STEP = SPLIT ? 2 : 1 };
};

// COUNT codes of a codebook as nibbles: of 4 bits eight to a word, of fewer those of even number in words of even number, and
// the odd ones behind them.
template <int BITS, int COUNT, int ROW> inline void load_nibbles(Row row, uint first, uint (&words)[(COUNT + 7) / 8 + 1]) {
    if constexpr (BITS == 4) {
        uint got[(COUNT * 4 + 31) / 32];
        load_plane<4, COUNT, 0, ROW>(row, first, got);
        UNROLL for (int i = 0; i < (COUNT * 4 + 31) / 32; i++) words[i] = got[i];
    } else {
        uint low[(COUNT * 2 + 31) / 32], high[(COUNT + 31) / 32];
        load_plane<2, COUNT, 0, ROW>(row, first, low);
        if constexpr (BITS == 3) load_plane<1, COUNT, HEAD_DIM / 4, ROW>(row, first, high);
        UNROLL for (int i = 0; i < (COUNT * 2 + 31) / 32; i++) {
            uint even = low[i] & 0x33333333u, odd = low[i] >> 2 & 0x33333333u;
            if constexpr (BITS == 3) {
                // Sixteen bits, two to a nibble.
                uint bits = high[i / 2] >> (16 * (i % 2)) & 0xffffu;
                bits = (bits | bits << 8) & 0x00ff00ffu;
                bits = (bits | bits << 4) & 0x0f0f0f0fu;
                bits = (bits | bits << 2) & 0x33333333u;
                even |= bits << 2 & 0x44444444u;
                odd |= bits << 1 & 0x44444444u;
            }
            words[2 * i] = even;
            if (2 * i + 1 < (COUNT + 7) / 8 + 1) words[2 * i + 1] = odd;
        }
    }
}

// COUNT codes of a codebook as bytes, four to a word, in order of their numbers where BITS is 8; else the even ones of eight
// numbers before the odd ones.
template <int BITS, int COUNT, int ROW> inline void load_indices(Row row, uint first, uint (&words)[(COUNT + 7) / 8 * 2]) {
    if constexpr (BITS == 8) {
        uint got[(COUNT + 3) / 4];
        load_plane<8, COUNT, 0, ROW>(row, first, got);
        UNROLL for (int i = 0; i < (COUNT + 3) / 4; i++) words[i] = got[i];
    } else {
        uint low[(COUNT * 4 + 31) / 32], high[(COUNT * (BITS - 4) + 31) / 32];
        load_plane<4, COUNT, 0, ROW>(row, first, low);
        load_plane<BITS == 6 ? 2 : 1, COUNT, HEAD_DIM / 2, ROW>(row, first, high);
        UNROLL for (int i = 0; i < (COUNT + 7) / 8; i++) {
            uint even, odd;
            if constexpr (BITS == 6) {
                uint bits = high[i / 2] >> (16 * (i % 2)) & 0xffffu;
                bits = (bits | bits << 8) & 0x00ff00ffu;
                bits = (bits | bits << 4) & 0x0f0f0f0fu;
                even = bits << 4 & 0x30303030u;
                odd = bits << 2 & 0x30303030u;
            } else {
                // A product puts every second bit into a byte of its own: no carry reaches those that are kept.
                uint bits = high[i / 4] >> (8 * (i % 4)) & 0xffu;
                even = (bits & 0x55u) * 0x00410410u & 0x10101010u;
                odd = (bits >> 1 & 0x55u) * 0x00410410u & 0x10101010u;
            }
            words[2 * i] = (low[i] & 0x0f0f0f0fu) | even;
            words[2 * i + 1] = (low[i] >> 4 & 0x0f0f0f0fu) | odd;
        }
    }
}

// The byte of number i in what `load_indices` has.
template <int BITS> inline uint index_of(const uint *words, int i) {
    if constexpr (BITS == 8) return permuted(words[i / 4], 0, 0x4440 + i % 4);
    return permuted(words[i / 8 * 2 + i % 2], 0, 0x4440 + i % 8 / 2);
}

// A codebook as lanes look it up, each in a copy of its own, so that no two meet in a bank: of at most 4 bits the two numbers of
// a byte's nibbles, of more the number of a code, twice.
template <int BITS> struct Book {
    enum : int {
        PAIRS = BITS <= 4,
        // The entries up to the largest that codes can make.
        ENTRIES = PAIRS ? ((1 << BITS) - 1) * 17 + 1 : 1 << BITS,
        BYTES = ENTRIES * 128
    };
};

// A thread makes 16 bytes at a time: of pairs always the same low number.
template <int BITS, const uint *HALVES> inline void fill_book(uchar *book, uint index) {
    const uint last = (1u << BITS) - 1u;
    UNROLL for (uint i = 0; i < (Book<BITS>::ENTRIES * 8 + THREADS - 1) / THREADS; i++) {
        uint part = i * THREADS + index, entry = part / 8u;
        if (part >= Book<BITS>::ENTRIES * 8u) break;
        uint low = min(Book<BITS>::PAIRS ? entry & 15u : entry, last), high = min(Book<BITS>::PAIRS ? entry >> 4 : entry, last);
        uint pair = permuted(HALVES[low / 2u] >> (16u * (low & 1u)), HALVES[high / 2u] >> (16u * (high & 1u)), 0x5410);
        ((uint4 *)book)[part] = make_uint4(pair, pair, pair, pair);
    }
}

// Scales of a row.
enum : int { GROUPS = KvForm<KEY_KIND>::SCALE_BYTES > 0 || KvForm<VALUE_KIND>::SCALE_BYTES > 0 ? ROW_GROUPS : 1 };

// What a lane reads of a side's rows.
template <int OF_KIND, int BITS, int OF_BYTES> struct Rows {
    enum : int {
        KIND = OF_KIND,
        BYTES = OF_BYTES,
        DENSE = KIND == KIND_F16,
        CODES = KvForm<KIND>::CODEBOOK,
        // `ldmatrix` reads eight rows at once: an odd number of 16 bytes apart they lie in different banks.
        STRIDE = DENSE && BYTES % 32 == 0 ? BYTES + 16 : BYTES,
        // Steps of sixteen numbers that a chunk is for.
        REST = HEAD_DIM / 16 / GROUPS,
        REACH = DENSE ? 1 : (REST % 8 == 0 ? 8 : (REST % 4 == 0 ? 4 : (REST % 2 == 0 ? 2 : 1))),
        CHUNK = 4 * REACH,
        // Pairs of a lane.
        PAIRS = CHUNK / 2,
        // Numbers of a value that a lane has of each group that has a scale.
        OWN = HEAD_DIM / 8 / GROUPS,
        WIDTH = CODES ? BITS : 8
    };
    typedef Pairs<CODES ? BITS : 8, CHUNK> Order;

    // The first number of pair i of a lane's chunk, of all its pairs; the second is `apart` further.
    static inline uint number(uint i, uint t) {
        if constexpr (DENSE) return 16u * (i / 2u) + 8u * (i % 2u) + 2u * t;
        return i / PAIRS * (4u * CHUNK) + t * CHUNK + Order::first(i % PAIRS);
    }
    enum : int { APART = DENSE ? 1 : Order::STEP };

    // The number of a value in rows g and g + 8 of tile i.
    static inline uint value_number(uint i, uint upper, uint g) {
        if constexpr (DENSE) return 16u * i + 8u * upper + g;
        return 2u * i / OWN * (8u * OWN) + g * OWN + 2u * i % OWN + upper;
    }
};

// The scale of a block and its codes from `within` on, two numbers apart.
template <int KIND> inline uint block_scale(uint block) {
    uint bits = load_short(block + KvForm<KIND>::SCALE_AT);
    return bits | bits << 16;
}

// The bytes of two numbers of a block that follow each other, an even one first, as numbers around a middle.
template <int KIND> inline uint block_codes(uint block, uint within) {
    if constexpr (KvForm<KIND>::CODE_BITS == 8) return load_short(block + KvForm<KIND>::CODES_AT + within) ^ 0x8080u;
    uint bits = load_short(block + KvForm<KIND>::CODES_AT + within % 16u);
    bits = bits >> (within / 16u * 4u) & 0x0f0fu;
    if constexpr (KvForm<KIND>::CODE_BITS == 5) {
        uint high = load_short(block + KvForm<KIND>::HIGH_AT + within / 16u * 2u) >> (within % 16u);
        bits |= (high & 1u) << 4 | (high & 2u) << 11;
    }
    return bits;
}

// Two bytes of a word as halves less their middle.
template <int KIND> inline uint block_halves(uint word, uint selector) {
    const uint middle = 0x64006400u + (KvForm<KIND>::CODE_BITS == 8 ? 128u : uint(KvForm<KIND>::ZERO)) * 0x10001u;
    return subtract_halves(permuted(word, 0x64646464u, selector), middle);
}

// COUNT codes of a block from `within` on as bytes around a middle, four to a word: COUNT divides a block, or is one.
template <int KIND, int COUNT> inline void block_words(uint block, uint within, uint (&words)[COUNT / 4]) {
    enum : int { BITS = KvForm<KIND>::CODE_BITS, HALF = BITS == 8 ? COUNT : (COUNT > 16 ? 16 : COUNT), LOADED = HALF / 4 };
    uint codes = block + KvForm<KIND>::CODES_AT + (BITS == 8 ? within : within % 16u);
    // Blocks lie at even addresses: words that hold the codes are read, and put together.
    uint selector = (codes & 2u) != 0u ? 0x5432 : 0x3210, whole[LOADED + 1], got[LOADED];
    load_bytes<4 * LOADED + 4, 4>({codes & ~3u, 0u}, whole);
    UNROLL for (int i = 0; i < LOADED; i++) got[i] = permuted(whole[i], whole[i + 1], selector);
    if constexpr (BITS == 8) {
        UNROLL for (int i = 0; i < LOADED; i++) words[i] = got[i] ^ 0x80808080u;
    } else {
        uint shift = COUNT > 16 ? 0u : within / 16u * 4u;
        UNROLL for (int i = 0; i < COUNT / 4; i++) words[i] = got[i % LOADED] >> (COUNT > 16 ? i / 4 * 4u : shift) & 0x0f0f0f0fu;
        if constexpr (BITS == 5) {
            uint high = block + KvForm<KIND>::HIGH_AT;
            uint bits = (load_short(high) | load_short(high + 2u) << 16) >> within;
            // A product puts each bit into a byte of its own.
            UNROLL for (int i = 0; i < COUNT / 4; i++) words[i] |= (bits >> (4 * i) & 0xfu) * 0x02040810u & 0x10101010u;
        }
    }
}

// A half of each of two numbers of rows in shared memory.
inline uint two_halves(uint first, uint second) { return load_short(first) | load_short(second) << 16; }

// The pairs of a chunk of a key, in the order of the keys that queries are laid out for.
template <typename Like, typename R> inline void key_pairs(Row row, uint chunk, uint t, uint book, uint (&pairs)[Like::PAIRS]) {
    enum : int { KIND = R::KIND, BYTES = R::BYTES, CHUNK = Like::CHUNK, WIDTH = R::WIDTH };
    uint first = chunk * (4u * CHUNK) + t * CHUNK;
    if constexpr (R::CODES && WIDTH <= 4) {
        const int NIBBLE_BITS = WIDTH <= 4 ? WIDTH : 4;
        uint words[(CHUNK + 7) / 8 + 1];
        load_nibbles<NIBBLE_BITS, CHUNK, BYTES>(row, first, words);
        UNROLL for (int i = 0; i < Like::PAIRS; i++) {
            // A chunk of less than sixteen codes leaves words half empty.
            const int HALF = CHUNK < 16 ? (CHUNK + 3) / 4 : 4;
            uint word = WIDTH == 4 ? words[i / 4] : words[i / HALF];
            uint byte = WIDTH == 4 ? i % 4 : i % HALF;
            pairs[i] = shared_word(permuted(word, 0, 0x4440 + byte) * 128u + book);
        }
    } else if constexpr (R::CODES) {
        const int INDEX_BITS = WIDTH > 4 ? WIDTH : 8;
        uint words[(CHUNK + 7) / 8 * 2];
        load_indices<INDEX_BITS, CHUNK, BYTES>(row, first, words);
        UNROLL for (int i = 0; i < Like::PAIRS; i++) {
            uint low = shared_word(index_of<INDEX_BITS>(words, 2 * i) * 128u + book);
            uint high = shared_word(index_of<INDEX_BITS>(words, 2 * i + 1) * 128u + book);
            pairs[i] = permuted(low, high, 0x5410);
        }
    } else if constexpr (R::DENSE) {
        UNROLL for (int i = 0; i < Like::PAIRS; i++) {
            uint at = row.base + row.offset + 2u * (first + Like::Order::first(i));
            pairs[i] = two_halves(at, at + 2u * Like::APART);
        }
    } else {
        uint block = row.base + row.offset + first / 32u * KvForm<KIND>::BLOCK_BYTES;
        uint scale = block_scale<KIND>(block), words[CHUNK / 4];
        if constexpr (CHUNK >= 8) block_words<KIND, CHUNK>(block, first % 32u, words);
        else words[0] = permuted(block_codes<KIND>(block, first % 32u), block_codes<KIND>(block, first % 32u + 2u), 0x5410);
        UNROLL for (int i = 0; i < Like::PAIRS; i++) {
            const uint at = Like::Order::first(i);
            pairs[i] = multiply_halves(block_halves<KIND>(words[at / 4u], 0x4040u + at % 4u + (at % 4u + Like::APART << 8)), scale);
        }
    }
}

// A lane's own numbers from `first` on, each of two positions.
template <typename R> inline void value_pairs(Row one, Row other, uint first, uint book, uint (&pairs)[R::OWN]) {
    enum : int { KIND = R::KIND, BYTES = R::BYTES, OWN = R::OWN, WIDTH = R::WIDTH };
    if constexpr (R::CODES && WIDTH <= 4) {
        const int NIBBLE_BITS = WIDTH <= 4 ? WIDTH : 4;
        uint a[(OWN + 7) / 8 + 1], b[(OWN + 7) / 8 + 1];
        load_nibbles<NIBBLE_BITS, OWN, BYTES>(one, first, a);
        load_nibbles<NIBBLE_BITS, OWN, BYTES>(other, first, b);
        UNROLL for (int i = 0; i < OWN; i += 2) {
            // The nibble of number i and of the one whose nibble is next to it: a byte of both positions once they have
            // changed places.
            int word = WIDTH == 4 ? i / 8 : i / 16 * 2, nibble = WIDTH == 4 ? i % 8 : i % 16 / 2;
            UNROLL for (int upper = 0; upper < 2; upper++) {
                int from = WIDTH == 4 ? word : word + upper, at = WIDTH == 4 ? nibble + upper : nibble;
                uint mixed = at % 2 == 0 ? selected(0x0f0f0f0fu, a[from], b[from] << 4) : selected(0x0f0f0f0fu, a[from] >> 4, b[from]);
                pairs[i + upper] = shared_word(permuted(mixed, 0, 0x4440 + at / 2) * 128u + book);
            }
        }
    } else if constexpr (R::CODES) {
        const int INDEX_BITS = WIDTH > 4 ? WIDTH : 8;
        uint a[(OWN + 7) / 8 * 2], b[(OWN + 7) / 8 * 2];
        load_indices<INDEX_BITS, OWN, BYTES>(one, first, a);
        load_indices<INDEX_BITS, OWN, BYTES>(other, first, b);
        UNROLL for (int i = 0; i < OWN; i++) {
            uint low = shared_word(index_of<INDEX_BITS>(a, i) * 128u + book);
            uint high = shared_word(index_of<INDEX_BITS>(b, i) * 128u + book);
            pairs[i] = permuted(low, high, 0x5410);
        }
    } else if constexpr (R::DENSE) {
        UNROLL for (int i = 0; i < OWN; i++) pairs[i] = two_halves(one.base + one.offset + 2u * (first + i), other.base + other.offset + 2u * (first + i));
    } else if constexpr (OWN % 32 == 0 || (32 % OWN == 0 && OWN >= 8)) {
        enum : int { COUNT = OWN < 32 ? OWN : 32 };
        UNROLL for (int part = 0; part < OWN / COUNT; part++) {
            uint at = (first / 32u + part) * KvForm<KIND>::BLOCK_BYTES, a[COUNT / 4], b[COUNT / 4];
            uint at_one = one.base + one.offset + at, at_other = other.base + other.offset + at;
            uint scale = permuted(block_scale<KIND>(at_one), block_scale<KIND>(at_other), 0x5410);
            block_words<KIND, COUNT>(at_one, first % 32u, a);
            block_words<KIND, COUNT>(at_other, first % 32u, b);
            UNROLL for (int i = 0; i < COUNT; i += 2) {
                uint codes = permuted(a[i / 4], b[i / 4], i % 4 == 0 ? 0x5140 : 0x7362);
                pairs[part * COUNT + i] = multiply_halves(block_halves<KIND>(codes, 0x4140), scale);
                pairs[part * COUNT + i + 1] = multiply_halves(block_halves<KIND>(codes, 0x4342), scale);
            }
        }
    } else {
        UNROLL for (int i = 0; i < OWN; i += 2) {
            uint at = (first + i) / 32u * KvForm<KIND>::BLOCK_BYTES, within = (first + i) % 32u;
            uint at_one = one.base + one.offset + at, at_other = other.base + other.offset + at;
            uint scale = permuted(block_scale<KIND>(at_one), block_scale<KIND>(at_other), 0x5410);
            uint codes = permuted(block_codes<KIND>(at_one, within), block_codes<KIND>(at_other, within), 0x5140);
            pairs[i] = multiply_halves(block_halves<KIND>(codes, 0x4140), scale);
            pairs[i + 1] = multiply_halves(block_halves<KIND>(codes, 0x4342), scale);
        }
    }
}
