//! What questions are about.

/// Towns.
pub(super) const TOWNS: [&str; 16] = [
    "Lisbon", "Oslo", "Vienna", "Cairo", "Lima", "Kyoto", "Dublin", "Prague", "Boston", "Nairobi",
    "Hanoi", "Geneva", "Athens", "Quito", "Tunis", "Riga",
];

/// First names.
pub(super) const NAMES: [&str; 16] = [
    "Anna", "Boris", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Irene", "Jonas",
    "Karin", "Leon", "Maria", "Nils", "Olga", "Peter",
];

/// Family names.
pub(super) const FAMILIES: [&str; 12] = [
    "Berg", "Castle", "Dorn", "Ekman", "Fischer", "Grant", "Holm", "Irving", "Jensen", "Keller",
    "Lund", "Moore",
];

/// Things that can be counted.
pub(super) const THINGS: [&str; 12] = [
    "pears", "books", "coins", "shells", "stamps", "buttons", "pencils", "marbles", "tickets",
    "candles", "eggs", "cups",
];
