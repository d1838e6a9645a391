//! One case table per op, run against every backend that is present.
