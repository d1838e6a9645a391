//! Matrix products with weights of any storage type.
