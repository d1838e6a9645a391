//! Tensors, ops, validation, command lists, hazards and the Backend trait.
