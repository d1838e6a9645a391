// Numbers of twice a float's precision, as an unevaluated sum: what the reference computes in doubles, which not every
// GPU has (Dekker 1971, Knuth's two-sum). They rely on products and sums that are rounded one by one.
struct Wide {
    float high, low;
};

inline Wide wide_sum(float a, float b) {
    Wide sum;
    sum.high = a + b;
    float part = sum.high - a;
    sum.low = (a - (sum.high - part)) + (b - part);
    return sum;
}

// For a of at least b's magnitude.
inline Wide wide_quick_sum(float a, float b) {
    Wide sum;
    sum.high = a + b;
    sum.low = b - (sum.high - a);
    return sum;
}

inline Wide wide_add(Wide a, Wide b) {
    Wide high = wide_sum(a.high, b.high);
    Wide low = wide_sum(a.low, b.low);
    high = wide_quick_sum(high.high, high.low + low.high);
    return wide_quick_sum(high.high, high.low + low.low);
}

// a + b for sums of many positive terms: the low parts add up as singles.
inline Wide wide_accumulate(Wide a, Wide b) {
    Wide sum = wide_sum(a.high, b.high);
    sum.low += a.low + b.low;
    return sum;
}

inline Wide wide_negate(Wide a) {
    Wide negative = {-a.high, -a.low};
    return negative;
}

inline Wide wide_square(Wide a) {
    Wide square;
    square.high = a.high * a.high;
    square.low = fma(a.high, a.high, -square.high) + 2.0f * a.high * a.low;
    return wide_quick_sum(square.high, square.low);
}

inline Wide wide_product(Wide a, float b) {
    Wide product;
    product.high = a.high * b;
    product.low = fma(a.high, b, -product.high) + a.low * b;
    return wide_quick_sum(product.high, product.low);
}

inline Wide wide_quotient(Wide a, Wide b) {
    float first = a.high / b.high;
    Wide rest = wide_add(a, wide_negate(wide_product(b, first)));
    float second = rest.high / b.high;
    rest = wide_add(rest, wide_negate(wide_product(b, second)));
    Wide sum = wide_quick_sum(first, second);
    return wide_quick_sum(sum.high, sum.low + rest.high / b.high);
}

// Of a number from 2^-60 to 2^60, or of 0.
inline Wide wide_sqrt(Wide a) {
    if (a.high <= 0.0f) {
        Wide zero = {0.0f, 0.0f};
        return zero;
    }
    float root = sqrt(a.high);
    Wide square;
    square.high = root * root;
    square.low = fma(root, root, -square.high);
    Wide rest = wide_add(a, wide_negate(square));
    return wide_quick_sum(root, usual_quotient(rest.high, 2.0f * root));
}

inline Wide shuffled(Wide a, uint mask) {
    Wide other;
    other.high = simd_shuffle_xor(a.high, mask);
    other.low = simd_shuffle_xor(a.low, mask);
    return other;
}

inline Wide plus(Wide a, Wide b) { return wide_add(a, b); }

inline Wide minus(Wide a, Wide b) { return wide_add(a, wide_negate(b)); }

inline Wide flip(Wide a, uint negative) {
    if (negative) return wide_negate(a);
    return a;
}

inline Wide shortened(Wide a) {
    Wide first = wide_product(a, ROTATION_FACTOR[0]);
    return wide_add(first, wide_product(a, ROTATION_FACTOR[1]));
}

inline void clear(thread Wide &value) {
    value.high = 0.0f;
    value.low = 0.0f;
}

// As row_sum.
inline Wide wide_row_sum(Wide value) {
    UNROLL for (uint mask = 8; mask > 0; mask /= 2) value = wide_add(value, shuffled(value, mask));
    return value;
}

// A power of two that brings a magnitude near one, and its inverse.
inline float power_near(float magnitude) {
    uint exponent = max(min(as_type<uint>(magnitude) >> 23, 252u), 2u);
    return as_type<float>(exponent << 23);
}
