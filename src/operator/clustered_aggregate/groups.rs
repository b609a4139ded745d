//! Groups that are being aggregated: found by comparing neighbours while the key rises, by hashing when it does not.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt64Array};
use datafusion::arrow::compute::{concat, partition, take};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::rows::Rows;

/// What an aggregate puts out, and how.
#[derive(Debug)]
pub(super) struct Spec {
    /// The group columns, without the aggregates.
    pub(super) keys: SchemaRef,
    /// The group columns and the aggregates.
    pub(super) output: SchemaRef,
    pub(super) aggregates: Vec<Arc<AggregateFunctionExpr>>,
}

impl Spec {
    fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        self.aggregates.iter().map(|aggregate| aggregate.create_groups_accumulator()).collect()
    }

    fn table(&self) -> Result<Box<dyn GroupValues>> {
        new_group_values(Arc::clone(&self.keys), &GroupOrdering::None)
    }
}

/// The keys of groups, and their accumulators' states, one list for each aggregate.
pub(super) struct States {
    keys: Vec<ArrayRef>,
    states: Vec<Vec<ArrayRef>>,
}

/// The groups that were met since the last ones were put out.
///
/// Groups have numbers from 0 in the order in which they are met; accumulators and keys are kept by number, as
/// DataFusion's hash aggregate does. Whether the next row begins a new group is decided in the cheapest way that is
/// right for the rows so far: by comparing with the row before, as long as the clustered key has only risen, and
/// by a hash table from the first row on that breaks the order.
pub(super) struct Groups {
    spec: Arc<Spec>,
    keys: Keys,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// The group of each row at hand; kept for its memory.
    indices: Vec<usize>,
    len: usize,
}

enum Keys {
    /// The clustered key has risen from group to group so far: a greater one begins a new group.
    Rising {
        /// The first row of each group, in chunks.
        firsts: Vec<Vec<ArrayRef>>,
        last: Option<i64>,
    },
    /// It has not.
    Hashed(Box<dyn GroupValues>),
}

impl Keys {
    fn rising() -> Self {
        Self::Rising { firsts: Vec::new(), last: None }
    }
}

impl Groups {
    /// No groups, whose keys are expected to rise.
    ///
    /// # Errors
    /// If an aggregate function has no accumulator for groups.
    pub(super) fn new(spec: Arc<Spec>) -> Result<Self> {
        let accumulators = spec.accumulators()?;
        Ok(Self { spec, keys: Keys::rising(), accumulators, indices: Vec::new(), len: 0 })
    }

    /// Groups that are found by hashing from the start, whatever order their rows come in.
    pub(super) fn hashed(spec: Arc<Spec>) -> Result<Self> {
        let table = spec.table()?;
        Ok(Self { keys: Keys::Hashed(table), ..Self::new(spec)? })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a key that is not greater than this one can only be found by hashing.
    pub(super) fn last(&self) -> Option<i64> {
        match &self.keys {
            Keys::Rising { last, .. } => *last,
            Keys::Hashed(_) => Some(i64::MAX),
        }
    }

    /// Bytes of keys and accumulators.
    pub(super) fn size(&self) -> usize {
        let keys = match &self.keys {
            Keys::Rising { firsts, .. } => {
                firsts.iter().flatten().map(|column| column.get_array_memory_size()).sum()
            }
            Keys::Hashed(table) => table.size(),
        };
        let accumulators: usize = self.accumulators.iter().map(|accumulator| accumulator.size()).sum();
        keys + accumulators + self.indices.capacity() * size_of::<usize>()
    }

    /// Takes `rows` into the groups.
    pub(super) fn add(&mut self, rows: &Rows) -> Result<()> {
        self.assign(rows)?;
        for ((accumulator, arguments), filter) in
            self.accumulators.iter_mut().zip(&rows.arguments).zip(&rows.filters)
        {
            accumulator.update_batch(arguments, &self.indices, filter.as_ref(), self.len)?;
        }
        Ok(())
    }

    /// Takes the states of other groups into those with the same keys.
    pub(super) fn merge(&mut self, other: &States) -> Result<()> {
        self.hash(&other.keys)?;
        for (accumulator, states) in self.accumulators.iter_mut().zip(&other.states) {
            accumulator.merge_batch(states, &self.indices, self.len)?;
        }
        Ok(())
    }

    /// The groups' results, and an empty set of groups.
    pub(super) fn evaluate(&mut self) -> Result<RecordBatch> {
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.push(accumulator.evaluate(EmitTo::All)?);
        }
        self.accumulators = self.spec.accumulators()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.spec.output), columns)?)
    }

    /// What other groups can [merge](Self::merge).
    pub(super) fn states(mut self) -> Result<States> {
        let keys = self.take_keys()?;
        let states =
            self.accumulators.iter_mut().map(|each| each.state(EmitTo::All)).collect::<Result<_>>()?;
        Ok(States { keys, states })
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.len = 0;
        match std::mem::replace(&mut self.keys, Keys::rising()) {
            Keys::Hashed(mut table) => table.emit(EmitTo::All),
            Keys::Rising { firsts, .. } => (0..self.spec.keys.fields().len())
                .map(|column| {
                    let chunks: Vec<&dyn Array> =
                        firsts.iter().filter_map(|chunk| Some(chunk.get(column)?.as_ref())).collect();
                    Ok(concat(&chunks)?)
                })
                .collect(),
        }
    }

    /// Gives each row its group.
    fn assign(&mut self, rows: &Rows) -> Result<()> {
        let Keys::Rising { firsts, last } = &mut self.keys else { return self.hash(&rows.keys) };
        let starts = run_starts(rows)?;
        let (Some(&highest), Some(&first)) =
            (rows.clustered.values().last(), rows.clustered.values().first())
        else {
            self.indices.clear();
            return Ok(());
        };
        let continues = *last == Some(first)
            && firsts.last().is_some_and(|chunk| same_key(chunk, &rows.keys).unwrap_or(false));
        if !(continues || last.is_none_or(|last| last < first)) || !rise(&rows.clustered, &starts) {
            self.hash_from_now_on()?;
            return self.hash(&rows.keys);
        }
        let before = self.len - usize::from(continues);
        self.indices.clear();
        let ends = starts.iter().skip(1).copied().chain([rows.len()]);
        for (index, (start, end)) in starts.iter().zip(ends).enumerate() {
            self.indices.extend(std::iter::repeat_n(before + index, end - start));
        }
        let new: UInt64Array =
            starts.iter().skip(usize::from(continues)).map(|start| *start as u64).collect();
        if !new.is_empty() {
            let taken = rows.keys.iter().map(|key| Ok(take(key, &new, None)?)).collect::<Result<_>>()?;
            firsts.push(taken);
        }
        self.len += new.len();
        *last = Some(highest);
        Ok(())
    }

    fn hash(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let Keys::Hashed(table) = &mut self.keys else {
            self.hash_from_now_on()?;
            return self.hash(keys);
        };
        table.intern(keys, &mut self.indices)?;
        self.len = table.len();
        Ok(())
    }

    /// Moves the groups so far into a table, where they keep their numbers.
    fn hash_from_now_on(&mut self) -> Result<()> {
        let mut table = self.spec.table()?;
        if let Keys::Rising { firsts, .. } = &self.keys {
            for chunk in firsts {
                table.intern(chunk, &mut self.indices)?;
            }
        }
        if table.len() != self.len {
            return internal_err!("{} groups have {} different keys", self.len, table.len());
        }
        self.keys = Keys::Hashed(table);
        Ok(())
    }
}

/// Where rows begin whose keys differ from those of the row before.
fn run_starts(rows: &Rows) -> Result<Vec<usize>> {
    if let [_] = rows.keys.as_slice() {
        let values = rows.clustered.values();
        let changes = values.windows(2).enumerate().filter_map(|(index, pair)| match pair {
            [before, after] if before != after => Some(index + 1),
            _ => None,
        });
        let first = (!values.is_empty()).then_some(0);
        return Ok(first.into_iter().chain(changes).collect());
    }
    Ok(partition(&rows.keys)?.ranges().into_iter().map(|range| range.start).collect())
}

/// Whether the clustered key of each run is greater than that of the run before.
fn rise(clustered: &Int64Array, starts: &[usize]) -> bool {
    let values = clustered.values();
    starts.windows(2).all(|pair| match pair {
        [before, after] => values.get(*before) < values.get(*after),
        _ => true,
    })
}

/// Whether the last key of `before` is the first key of `after`.
fn same_key(before: &[ArrayRef], after: &[ArrayRef]) -> Result<bool> {
    if let [_] = after {
        // The clustered key is the only one, and its values have been compared.
        return Ok(true);
    }
    let fields = after.iter().map(|column| SortField::new(column.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let last: Vec<ArrayRef> = before.iter().map(|column| column.slice(column.len() - 1, 1)).collect();
    let first: Vec<ArrayRef> = after.iter().map(|column| column.slice(0, 1)).collect();
    let (last, first) = (converter.convert_columns(&last)?, converter.convert_columns(&first)?);
    Ok(last.row(0) == first.row(0))
}
