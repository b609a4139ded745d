//! A fingerprint that means the same in another process.
//!
//! Within a process, functions and tables are known by their addresses. What leaves it names them: a function where it is
//! DataFusion's own, a table (`store/version/portable.rs`) where it is files. Everything else stays in the process, and the
//! reason is said.
//!
//! This is no second definition of what a query asks: the words are those of the fingerprint, one by one, and only the
//! addresses among them are put in another way.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use super::token::{Pin, Token};
use super::words::Words;
use super::{Fingerprint, Refusal};

/// DataFusion's own functions, by name.
#[derive(Debug)]
pub(crate) struct BuiltIns {
    scalars: HashMap<String, Arc<ScalarUDF>>,
    aggregates: HashMap<String, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
}

impl Default for BuiltIns {
    fn default() -> Self {
        let scalars = SessionStateDefaults::default_scalar_functions().into_iter();
        let aggregates = SessionStateDefaults::default_aggregate_functions().into_iter();
        let windows = SessionStateDefaults::default_window_functions().into_iter();
        Self {
            scalars: scalars.map(|function| (function.name().to_owned(), function)).collect(),
            aggregates: aggregates.map(|function| (function.name().to_owned(), function)).collect(),
            windows: windows.map(|function| (function.name().to_owned(), function)).collect(),
        }
    }
}

impl BuiltIns {
    /// The name of the function that `pin` keeps, where it is the one that DataFusion has under this name.
    ///
    /// A name alone would prove nothing: anybody may register a function under `lower`. The function has to be of the very type
    /// of DataFusion's, in the same state: as it comes, or as a session with these settings makes it (`to_timestamp` knows the
    /// session's time zone).
    ///
    /// # Errors
    /// It is another one.
    fn name(&self, pin: &Pin, config: &ConfigOptions) -> Result<String, Refusal> {
        let gone = || Refusal::new("function", "a function is gone");
        let (name, is_own) = match pin {
            Pin::Scalar(function) => {
                let function = function.upgrade().ok_or_else(gone)?;
                let own = self.scalars.get(function.name());
                let is_own = own.is_some_and(|own| {
                    let adapted = own.inner().with_updated_config(config);
                    function.dyn_eq(own.inner().as_ref() as &dyn Any)
                        || adapted.is_some_and(|own| function.dyn_eq(own.inner().as_ref() as &dyn Any))
                });
                (function.name().to_owned(), is_own)
            }
            Pin::Aggregate(function) => {
                let function = function.upgrade().ok_or_else(gone)?;
                let own = self.aggregates.get(function.name());
                let is_own = own.is_some_and(|own| function.dyn_eq(own.inner().as_ref() as &dyn Any));
                (function.name().to_owned(), is_own)
            }
            Pin::Window(function) => {
                let function = function.upgrade().ok_or_else(gone)?;
                let own = self.windows.get(function.name());
                let is_own = own.is_some_and(|own| function.dyn_eq(own.inner().as_ref() as &dyn Any));
                (function.name().to_owned(), is_own)
            }
            Pin::Table(_) => return Err(Refusal::new("table", "a table is known by its address alone")),
        };
        match is_own {
            true => Ok(name),
            false => Err(Refusal::new("function", format!("{name}() is not DataFusion's own"))),
        }
    }
}

/// The words of `print` as bytes, under a session's settings. Tables are their places: which they are is for the caller to say.
///
/// # Errors
/// A function is not DataFusion's own, or a literal has no such bytes.
pub(crate) fn portable(
    print: &Fingerprint,
    built_ins: &BuiltIns,
    config: &ConfigOptions,
) -> Result<Words, Refusal> {
    let mut words = Words::default();
    // Each address is that of a function, which is pinned in the order in which it is met.
    let mut pins = print.pins.iter();
    words.count(print.tokens.len());
    for token in &print.tokens {
        match token {
            Token::Kind(kind) => {
                words.number(0);
                words.text(kind);
            }
            Token::Number(number) => {
                words.number(1);
                words.count(*number);
            }
            Token::Text(text) => {
                words.number(2);
                words.text(text);
            }
            Token::Value(value) => {
                words.number(3);
                words.value(value)?;
            }
            Token::Field(field) => {
                words.number(4);
                words.field(field);
            }
            Token::Frame(frame) => {
                words.number(5);
                words.frame(frame)?;
            }
            Token::Address(at) => {
                let pin = pins.next().filter(|pin| pin.is_at(*at));
                let pin = pin.ok_or_else(|| Refusal::new("function", "a function is not known"))?;
                words.number(6);
                words.text(&built_ins.name(pin, config)?);
            }
        }
    }
    words.number(print.determined_below.map_or(u64::MAX, |below| below as u64));
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::fingerprint;
    use datafusion::arrow::datatypes::DataType;
    use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    use datafusion::prelude::SessionContext;

    async fn words(ctx: &SessionContext, sql: &str) -> Result<Vec<u8>, Refusal> {
        let plan = ctx.sql(sql).await.unwrap().into_optimized_plan().unwrap();
        let state = ctx.state();
        let print = fingerprint(&plan, None)?;
        portable(&print, &BuiltIns::default(), state.config_options()).map(Words::into_bytes)
    }

    async fn with_table() -> SessionContext {
        let ctx = SessionContext::new();
        ctx.sql("CREATE TABLE t (a BIGINT, s VARCHAR) AS VALUES (1, 'x')").await.unwrap();
        ctx
    }

    #[tokio::test]
    async fn two_sessions_have_the_same_words_for_the_same_query() {
        let texts = [
            "SELECT lower(s), sum(a) FILTER (WHERE a > 1) FROM t GROUP BY lower(s) ORDER BY 2",
            "SELECT row_number() OVER (ORDER BY a), lag(a, 2) OVER (ORDER BY a), first_value(s) OVER (ORDER BY a ROWS 2 PRECEDING) FROM t",
            "SELECT to_timestamp(a), date_trunc('day', to_timestamp(a)), round(a * 1.5, 1) FROM t",
            "SELECT a FROM t WHERE s IN ('a', 'b') OR s LIKE 'x%' LIMIT 7",
        ];
        let (one, other) = (with_table().await, with_table().await);
        let mut all = std::collections::HashSet::new();
        for text in texts {
            let here = words(&one, text).await.unwrap();
            assert_eq!(here, words(&other, text).await.unwrap(), "{text}");
            assert!(all.insert(here), "{text}");
        }
    }

    #[tokio::test]
    async fn a_function_of_a_builtins_name_is_not_the_builtin() {
        let ctx = with_table().await;
        words(&ctx, "SELECT lower(s) FROM t").await.unwrap();
        let own = create_udf(
            "lower",
            vec![DataType::Utf8],
            DataType::Utf8,
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| Ok(args[0].clone())),
        );
        ctx.register_udf(own);
        let refusal = words(&ctx, "SELECT lower(s) FROM t").await.unwrap_err();
        assert_eq!(refusal.reason, "lower() is not DataFusion's own");
    }

    #[tokio::test]
    async fn a_builtin_with_other_settings_is_not_this_sessions() {
        let ctx = with_table().await;
        let plan = ctx.sql("SELECT to_timestamp(s) FROM t").await.unwrap().into_optimized_plan().unwrap();
        let print = fingerprint(&plan, None).unwrap();
        let mut config = ConfigOptions::default();
        portable(&print, &BuiltIns::default(), &config).unwrap();
        ctx.sql("SET datafusion.execution.time_zone = '+02:00'").await.unwrap();
        let plan = ctx.sql("SELECT to_timestamp(s) FROM t").await.unwrap().into_optimized_plan().unwrap();
        let print = fingerprint(&plan, None).unwrap();
        let refusal = portable(&print, &BuiltIns::default(), &config).unwrap_err();
        assert_eq!(refusal.reason, "to_timestamp() is not DataFusion's own");
        config.set("datafusion.execution.time_zone", "+02:00").unwrap();
        portable(&print, &BuiltIns::default(), &config).unwrap();
    }
}
