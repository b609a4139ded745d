//! What a hash join costs, and which way of running it costs least.
//!
//! The unit is about a nanosecond of elapsed time. The constants were fitted to TPC-H at scale factor 10 on two
//! cores; they weigh alternatives of one query against each other and promise nothing else.

/// Rows and their width.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) rows: f64,
    pub(super) row_bytes: f64,
}

impl Flow {
    fn bytes(self) -> f64 {
        self.rows * self.row_bytes
    }
}

/// Hashing a row of the build side and inserting it into a table that fits the second-level cache.
const BUILD_ROW: f64 = 10.0;
/// The same in main memory, on top; and copying the row into one batch, of which each page is new.
const BUILD_MISS: f64 = 20.0;
const BUILD_BYTE: f64 = 2.5;
/// Looking up one row of the probe side in a table that fits the second-level cache.
const PROBE_ROW: f64 = 8.0;
/// The same in main memory, on top.
const PROBE_MISS: f64 = 25.0;
/// Gathering one row of the result.
const OUTPUT_ROW: f64 = 6.0;
const OUTPUT_BYTE: f64 = 0.3;
/// Hashing a row, gathering it, and handing it to another partition.
const EXCHANGE_ROW: f64 = 14.0;
const EXCHANGE_BYTE: f64 = 0.5;
/// Bytes of a hash table's entry apart from the row.
const ENTRY_BYTES: f64 = 16.0;

/// The elapsed time of a hash join whose build side is collected into one table.
///
/// One thread builds the table; all probe it.
pub(super) fn collected(build: Flow, probe: Flow, output: Flow, partitions: f64) -> f64 {
    building(build) + (probing(probe, build) + gathering(output)) / partitions
}

/// The elapsed time of a hash join of which both sides are partitioned by their keys.
pub(super) fn partitioned(build: Flow, probe: Flow, output: Flow, partitions: f64) -> f64 {
    let share = Flow { rows: build.rows / partitions, ..build };
    (exchange(build) + exchange(probe) + building(build) + probing(probe, share) + gathering(output))
        / partitions
}

/// What it costs to put `build` into a hash table: each row is copied, hashed and linked, and misses the cache the more
/// often the larger the table is.
fn building(build: Flow) -> f64 {
    build.rows * BUILD_ROW + miss_share(build) * (build.rows * BUILD_MISS + build.bytes() * BUILD_BYTE)
}

/// What it costs to look the rows of `probe` up in a table of `build`.
fn probing(probe: Flow, build: Flow) -> f64 {
    probe.rows * (PROBE_ROW + PROBE_MISS * miss_share(build))
}

/// The share of look-ups that go to main memory, from none at 1 MiB to all at 64 MiB.
fn miss_share(build: Flow) -> f64 {
    const CACHED: f64 = 1_048_576.0;
    let table = build.rows * (build.row_bytes + ENTRY_BYTES);
    ((table / CACHED).log2() / 6.0).clamp(0.0, 1.0)
}

/// What it costs to put a joined row together, by its width.
fn gathering(output: Flow) -> f64 {
    output.rows * OUTPUT_ROW + output.bytes() * OUTPUT_BYTE
}

/// What it costs to hash rows to their partitions, and to copy them there.
fn exchange(flow: Flow) -> f64 {
    flow.rows * EXCHANGE_ROW + flow.bytes() * EXCHANGE_BYTE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(rows: f64) -> Flow {
        Flow { rows, row_bytes: 16.0 }
    }

    #[test]
    fn a_small_build_side_is_collected_and_a_large_one_is_not() {
        let (probe, output) = (flow(60e6), flow(60e6));
        assert!(collected(flow(1e4), probe, output, 2.0) < partitioned(flow(1e4), probe, output, 2.0));
        let (probe, output) = (flow(20e6), flow(20e6));
        assert!(collected(flow(20e6), probe, output, 8.0) > partitioned(flow(20e6), probe, output, 8.0));
    }

    #[test]
    fn the_smaller_side_is_built() {
        let (small, large) = (flow(1e5), flow(1e7));
        for partitions in [1.0, 2.0, 16.0] {
            assert!(collected(small, large, large, partitions) < collected(large, small, large, partitions));
        }
    }
}
