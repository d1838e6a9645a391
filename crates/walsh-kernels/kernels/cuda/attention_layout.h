// What lies where in the memory of a group that decodes attention, and what its lanes hold.
enum : int {
    SIMDS = THREADS / 32,
    PIECES = TILE / 16,
    // Whether queries stay in registers.
    HELD = HEAD_DIM * COLUMNS <= 256,
    HELD_WORDS = HELD ? HEAD_DIM / 8 * COLUMNS : 1,
    KEY_SCALED = KvForm<KEY_KIND>::SCALE_BYTES > 0,
    VALUE_SCALED = KvForm<VALUE_KIND>::SCALE_BYTES > 0
};

typedef Rows<KEY_KIND, KEY_BITS, KEY_BYTES> Keys;
typedef Rows<VALUE_KIND, VALUE_BITS, VALUE_BYTES> Values;

// Rows of a zone: 0 the codes, 1 the overlay, which is taken sixteen places at a time.
template <int OF_ZONE> struct Zone {
    enum : int {
        KEY = OF_ZONE == 1 ? OVERLAY_KEY_KIND : KEY_KIND,
        VALUE = OF_ZONE == 1 ? OVERLAY_VALUE_KIND : VALUE_KIND,
        SCALED = OF_ZONE == 0 && (KEY_SCALED || VALUE_SCALED)
    };
    typedef Rows<KEY, OF_ZONE == 1 ? 8 : KEY_BITS, OF_ZONE == 1 ? OVERLAY_KEY_BYTES : KEY_BYTES> Keys;
    typedef Rows<VALUE, OF_ZONE == 1 ? 8 : VALUE_BITS, OF_ZONE == 1 ? OVERLAY_VALUE_BYTES : VALUE_BYTES> Values;
    enum : int {
        POSITIONS = OF_ZONE == 1 ? 16 : TILE,
        KEY_STAGE = (POSITIONS * Keys::STRIDE + 127) / 128 * 128,
        STAGE = KEY_STAGE + (POSITIONS * Values::STRIDE + 127) / 128 * 128
    };
};

// What lies where in the group's memory.
enum : int {
    KEY_BOOK = 0,
    KEY_BOOK_BYTES = Keys::CODES ? Book<Keys::CODES ? KEY_BITS : 8>::BYTES : 0,
    ONE_BOOK = Keys::CODES && Values::CODES && KEY_BITS == VALUE_BITS,
    VALUE_BOOK = ONE_BOOK ? 0 : KEY_BOOK_BYTES,
    VALUE_BOOK_BYTES = Values::CODES && !ONE_BOOK ? Book<Values::CODES ? VALUE_BITS : 8>::BYTES : 0,
    // The queries as second matrices: for each step and lane two pairs, of each eight rows.
    QUERY = KEY_BOOK_BYTES + VALUE_BOOK_BYTES,
    QUERY_BYTES = HEAD_DIM / 16 * COLUMNS * 256,
    TURNED = QUERY + QUERY_BYTES,
    TURNED_BYTES = LIVE * HEAD_DIM * 4,
    PALEY_ROWS = TURNED + TURNED_BYTES,
    PALEY_BYTES = ORDER > 1 ? THREADS / 16 * HEAD_DIM * 4 : 0,
    MARKS = PALEY_ROWS + PALEY_BYTES,
    MARK_BYTES = (SIMDS + 1) * LIVE * 8,
    // What the positions of a simdgroup's tile are scaled by.
    NOTES = MARKS + MARK_BYTES,
    NOTE_BYTES = KEY_SCALED || VALUE_SCALED ? SIMDS * TILE * GROUPS * 16 : 0,
    RING = (NOTES + NOTE_BYTES + 127) / 128 * 128,
    KEY_STAGE = Zone<0>::KEY_STAGE,
    STAGE = Zone<0>::STAGE,
    // The overlay's rows lie where no tiles are in flight.
    OVERLAY_STAGE = OVERLAY ? Zone<OVERLAY>::STAGE : 0,
    SIMD_RING = STAGES * STAGE > OVERLAY_STAGE ? STAGES * STAGE : OVERLAY_STAGE,
    // Words that hold the last codes of a row may end behind it.
    RING_BYTES = SIMDS * SIMD_RING + 16,
    // Sums meet where the ring was.
    SUM_BYTES = SIMDS * LIVE * HEAD_DIM * 4,
    ALL_BYTES = RING + (RING_BYTES > SUM_BYTES ? RING_BYTES : SUM_BYTES)
};
static_assert(ALL_BYTES <= DYNAMIC, "the group's memory holds all that lies in it");
static_assert(TURNED % 16 == 0 && RING % 16 == 0 && KEY_STAGE % 16 == 0 && STAGE % 16 == 0, "rows are copied 16 bytes at a time");
static_assert(TILE == 16 || TILE == 32, "a lane looks after one position of a tile");

// A lane's state of its rows' softmax: of columns 2.t and 2.t + 1 of each eight.
struct Softmax {
    float most[COLUMNS][2], total[COLUMNS][2];
    float out[HEAD_DIM / 16][COLUMNS][4];
};
