// The widest loads that every row of a tensor in blocks allows: ALIGN bytes.
template <int BYTES> struct Piece;
template <> struct Piece<1> {
    typedef uchar Type;
};
template <> struct Piece<2> {
    typedef ushort Type;
};
template <> struct Piece<4> {
    typedef uint Type;
};
template <> struct Piece<16> {
    typedef Vector Type;
};
typedef Piece<ALIGN>::Type Unit;

