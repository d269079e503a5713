-- What waits for CloudWatch and for the relay; "number" is the record's place in its journal.
CREATE TABLE cloudwatch (
    number INTEGER PRIMARY KEY,
    rank INTEGER NOT NULL,      -- 0: measurements, 1: a transition
    boot INTEGER NOT NULL,      -- the boot that "moment" belongs to
    moment INTEGER NOT NULL,    -- milliseconds since that boot
    wall INTEGER NOT NULL,      -- milliseconds since 1970, by the clock of then
    period INTEGER NOT NULL,    -- milliseconds; 0: no period
    checksum INTEGER NOT NULL,  -- CRC-32 of the others
    payload BLOB NOT NULL
);
CREATE TABLE relay (
    number INTEGER PRIMARY KEY,
    rank INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    moment INTEGER NOT NULL,
    wall INTEGER NOT NULL,
    period INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL
);

-- What became of the numbers that do not wait any more.
CREATE TABLE ledger (
    journal INTEGER NOT NULL,   -- 0: cloudwatch, 1: relay
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    fate TEXT NOT NULL,
    since INTEGER,              -- milliseconds since 1970, of the first record
    until INTEGER,              -- and of the last
    announced INTEGER NOT NULL, -- whether the receiver knows
    checksum INTEGER NOT NULL,  -- CRC-32 of journal, first, last and fate
    PRIMARY KEY (journal, first)
) WITHOUT ROWID;

-- The periods whose Capacity may have been counted, and by which record: no period counts twice.
CREATE TABLE counted (
    at INTEGER PRIMARY KEY,     -- start of the period, milliseconds since 1970
    number INTEGER NOT NULL
);

-- What the judge remembers, as JSON, a field a row.
CREATE TABLE memory (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;

-- Fills the file up when it grows, so that its room is ours; empty otherwise.
CREATE TABLE ballast (
    room BLOB NOT NULL
);
