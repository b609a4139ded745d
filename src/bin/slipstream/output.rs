//! Prints the rows of a query as they come, in datafusion-cli's formats.

use std::io::{self, Write};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::{ArrayWriter, LineDelimitedWriter};
use datafusion::common::instant::Instant;
use datafusion::common::plan_err;
use datafusion::config::FormatOptions;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{RecordBatchStream, TaskContext};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use datafusion_cli::print_format::PrintFormat;
use datafusion_cli::print_options::{MaxRows, PrintOptions};
use datafusion_slipstream::QueryStream;
use futures::StreamExt;

use crate::progress::Progress;

/// Prints all rows of a query, and then how many there were and how long it took.
///
/// Everything but a table is printed while the query runs, in constant memory. A table has to know its widest
/// value first: it keeps the rows that it will show, and counts the others.
pub(crate) async fn print(
    stream: QueryStream,
    options: &PrintOptions,
    context: &TaskContext,
    started: Instant,
    progress: Option<Progress>,
) -> Result<()> {
    let mut options = options.clone();
    options.format = choose_format(options.format, stream.physical_plan().as_ref())?;
    let format = &context.session_config().options().format;
    match options.format {
        PrintFormat::Table => print_table(stream, &options, context, format, started, progress).await,
        _ => print_rows(stream, &mut options, format, started, progress).await,
    }
}

/// Decides what 'automatic' means, and refuses what would never print a row.
fn choose_format(wanted: PrintFormat, plan: &dyn ExecutionPlan) -> Result<PrintFormat> {
    let endless = plan.boundedness().is_unbounded();
    if endless && plan.pipeline_behavior() == EmissionType::Final {
        return plan_err!(
            "the query has no row to show before its source ends, and the source is unbounded; \
             add a LIMIT below the aggregation or sort, or group by time windows"
        );
    }
    match wanted {
        PrintFormat::Automatic if endless => Ok(PrintFormat::Csv),
        PrintFormat::Automatic => Ok(PrintFormat::Table),
        PrintFormat::Table if endless => {
            plan_err!(
                "a table is printed when its last row is known, and the source is unbounded; use --format csv"
            )
        }
        wanted => Ok(wanted),
    }
}

async fn print_table(
    mut stream: QueryStream,
    options: &PrintOptions,
    context: &TaskContext,
    format: &FormatOptions,
    started: Instant,
    progress: Option<Progress>,
) -> Result<()> {
    let schema = stream.schema();
    let reservation = MemoryConsumer::new("rows of the printed table").register(context.memory_pool());
    let mut table = Table::new(options.maxrows, reservation);
    while let Some(batch) = stream.next().await {
        table.add(&batch?)?;
    }
    // The query is over: what it holds is not needed while its rows are printed.
    drop(stream);
    drop(progress);
    options.print_batches(schema, &table.kept, started, table.rows, format)
}

/// The rows of a table that will be shown.
struct Table {
    limit: usize,
    kept: Vec<RecordBatch>,
    kept_rows: usize,
    rows: usize,
    reservation: MemoryReservation,
}

impl Table {
    fn new(limit: MaxRows, reservation: MemoryReservation) -> Self {
        let limit = match limit {
            // One more than is shown tells the printer that there are more.
            MaxRows::Limited(rows) => rows.saturating_add(1),
            MaxRows::Unlimited => usize::MAX,
        };
        Self { limit, kept: vec![], kept_rows: 0, rows: 0, reservation }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows();
        let wanted = batch.num_rows().min(self.limit - self.kept_rows);
        if wanted > 0 {
            self.reservation.try_grow(get_record_batch_memory_size(batch))?;
            self.kept_rows += wanted;
            self.kept.push(batch.slice(0, wanted));
        }
        Ok(())
    }
}

async fn print_rows(
    mut stream: QueryStream,
    options: &mut PrintOptions,
    format: &FormatOptions,
    started: Instant,
    mut progress: Option<Progress>,
) -> Result<()> {
    let schema = stream.schema();
    let mut writer = RowWriter::new(options.format);
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.num_rows() > 0 {
            Progress::make_way(&mut progress);
            rows += batch.num_rows();
            writer.write(&batch)?;
        }
    }
    drop(stream);
    drop(progress);
    writer.finish(rows)?;
    print_summary(schema, options, format, started, rows)
}

/// The lines below the rows, which datafusion-cli prints below no rows as well.
fn print_summary(
    schema: SchemaRef,
    options: &mut PrintOptions,
    format: &FormatOptions,
    started: Instant,
    rows: usize,
) -> Result<()> {
    options.format = PrintFormat::Csv;
    options.print_batches(schema, &[], started, rows, format)
}

/// Turns batches into text in one of the formats that need no look ahead.
///
/// The text goes through a buffer instead of into stdout directly because arrow's writers turn an I/O error
/// into words, and a closed pipe has to be told from a failure.
struct RowWriter {
    format: RowFormat,
    text: Vec<u8>,
}

enum RowFormat {
    Separated { separator: u8, header: bool },
    Array(ArrayWriter<Vec<u8>>),
    Lines,
}

impl RowWriter {
    fn new(format: PrintFormat) -> Self {
        let format = match format {
            PrintFormat::Json => RowFormat::Array(ArrayWriter::new(vec![])),
            PrintFormat::NdJson => RowFormat::Lines,
            PrintFormat::Tsv => RowFormat::Separated { separator: b'\t', header: true },
            PrintFormat::Csv | PrintFormat::Automatic | PrintFormat::Table => {
                RowFormat::Separated { separator: b',', header: true }
            }
        };
        Self { format, text: vec![] }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.format {
            RowFormat::Separated { separator, header } => WriterBuilder::new()
                .with_header(std::mem::take(header))
                .with_delimiter(*separator)
                .build(&mut self.text)
                .write(batch)?,
            RowFormat::Lines => LineDelimitedWriter::new(&mut self.text).write(batch)?,
            RowFormat::Array(writer) => {
                writer.write(batch)?;
                self.text.append(writer.get_mut());
            }
        }
        self.flush()
    }

    /// Ends the rows; of no rows nothing is printed, not even a header or brackets.
    fn finish(mut self, rows: usize) -> Result<()> {
        if let (RowFormat::Array(writer), 1..) = (&mut self.format, rows) {
            writer.finish()?;
            self.text.append(writer.get_mut());
            self.text.push(b'\n');
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&self.text)?;
        stdout.flush()?;
        self.text.clear();
        Ok(())
    }
}
