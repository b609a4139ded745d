//! SQL functions that drop answers and plans: one, those of a table, those of a tag, all.

use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::store::{DiskTier, PlanCache, ResultStore};

/// What is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Which {
    All,
    Entry,
    Table,
    Tag,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::All => "slipstream_cache_clear",
            Self::Entry => "slipstream_cache_drop_entry",
            Self::Table => "slipstream_cache_drop_table",
            Self::Tag => "slipstream_cache_drop_tag",
        }
    }

    /// Whether `text` says the entry that has this name, these tables and this tag.
    fn matches(self, text: &str, name: &str, tables: &[String], tag: &str) -> bool {
        match self {
            Self::All => true,
            Self::Entry => name == text,
            // As the query called it: `t` also drops the answers of queries that said `public.t`.
            Self::Table => tables.iter().any(|table| {
                table == text || table.strip_suffix(text).is_some_and(|schema| schema.ends_with('.'))
            }),
            Self::Tag => tag == text,
        }
    }
}

/// Drops answers and plans, and says how many. Volatile, so that it acts when a query runs, and never when one is planned.
#[derive(Debug)]
struct DropFunction {
    which: Which,
    signature: Signature,
    results: Arc<ResultStore>,
    plans: Arc<PlanCache>,
    disk: Arc<DiskTier>,
}

impl PartialEq for DropFunction {
    fn eq(&self, other: &Self) -> bool {
        self.which == other.which && Arc::ptr_eq(&self.results, &other.results)
    }
}

impl Eq for DropFunction {}

impl Hash for DropFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.which.hash(state);
    }
}

/// All of them, for the answers in `results` and `disk` and the plans in `plans`.
pub(super) fn cache_functions(
    results: &Arc<ResultStore>,
    plans: &Arc<PlanCache>,
    disk: &Arc<DiskTier>,
) -> Vec<Arc<ScalarUDF>> {
    let function = |which| {
        let signature = match which {
            Which::All => Signature::nullary(Volatility::Volatile),
            _ => Signature::exact(vec![DataType::Utf8], Volatility::Volatile),
        };
        let (results, plans, disk) = (Arc::clone(results), Arc::clone(plans), Arc::clone(disk));
        Arc::new(ScalarUDF::from(DropFunction { which, signature, results, plans, disk }))
    };
    [Which::All, Which::Entry, Which::Table, Which::Tag].map(function).into()
}

impl ScalarUDFImpl for DropFunction {
    fn name(&self) -> &'static str {
        self.which.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::UInt64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = match args.args.as_slice() {
            [] => String::new(),
            [ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)))] => text.clone(),
            _ => return plan_err!("{}() takes a text, as in {0}('…')", self.name()),
        };
        let which = self.which;
        // An entry in memory and its copy on disk go together, whichever of them is named.
        let copies = RefCell::new(HashSet::new());
        let answers = self.results.drop_where(|result| {
            let copy = result.on_disk();
            let drops = which.matches(&text, &result.name(), result.tables(), result.tag())
                || (which == Which::Entry && copy.is_some_and(|copy| **copy == *text));
            copies.borrow_mut().extend(copy.filter(|_| drops).cloned());
            drops
        });
        let copies = copies.into_inner();
        let files = self
            .disk
            .drop_where(|name, tables, tag| copies.contains(name) || which.matches(&text, name, tables, tag));
        let plans =
            self.plans.drop_where(|plan| which.matches(&text, &plan.name(), &plan.tables(), plan.tag()));
        let dropped = answers + files + plans;
        Ok(ColumnarValue::Scalar(ScalarValue::UInt64(Some(dropped))))
    }
}
