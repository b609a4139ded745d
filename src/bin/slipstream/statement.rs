//! One statement, from its text to the rows on the screen.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use datafusion_cli::print_options::{MaxRows, PrintOptions};
use datafusion_slipstream::{ParsedQuery, PlannedQuery, QueryStream, SlipstreamContextExt};

use crate::culprit;
use crate::location::{self, Region};
use crate::output;
use crate::progress::{self, Progress};
use crate::report::{self, Failure};
use crate::session::Shell;

/// Runs a statement to its end, or until Ctrl-C: then its stream is dropped, and with it go its tasks, its
/// memory and its temporary files.
pub(crate) async fn run(shell: &mut Shell, text: &str) -> Result<(), Failure> {
    let Shell { ctx, print, interrupt, .. } = shell;
    let on = Statements { ctx, print };
    match interrupt.or(Box::pin(parse_and_print(&on, text))).await {
        Some(done) => done.map_err(Failure::from),
        None => Err(Failure::Cancelled),
    }
}

/// What a statement needs of the shell.
struct Statements<'a> {
    ctx: &'a SessionContext,
    print: &'a PrintOptions,
}

async fn parse_and_print(on: &Statements<'_>, text: &str) -> Result<()> {
    for query in on.ctx.parse_query(text)? {
        let statement = query.statement().clone();
        if let Err(error) = on.print_one(query).await {
            return Err(culprit::name_file(on.ctx, &statement, error).await);
        }
    }
    Ok(())
}

impl Statements<'_> {
    async fn print_one(&self, query: ParsedQuery) -> Result<()> {
        let started = progress::now();
        let progress = Progress::start(self.print.quiet, Arc::clone(&self.ctx.runtime_env().memory_pool));
        let mut options = self.print.clone();
        let stream = self.execute(query, &mut options).await?;
        if let Some(progress) = &progress {
            progress.follow(stream.physical_plan());
        }
        output::print(stream, &options, &self.ctx.task_ctx(), started, progress).await
    }

    /// Starts the statement. A bucket in another region than configured fails only when its files are listed:
    /// then the statement is planned once more, with the region that S3 tells.
    async fn execute(&self, query: ParsedQuery, options: &mut PrintOptions) -> Result<QueryStream> {
        show_all_rows_of_answers(query.statement(), options);
        let again = matches!(query.statement(), Statement::CreateExternalTable(_)).then(|| query.clone());
        let planned = self.plan(query, Region::Configured).await?;
        show_all_rows_of_plans(planned.logical_plan(), options);
        match (Box::pin(planned.execute()).await, again) {
            (Err(error), Some(query)) if location::may_be_wrong_region(&error) => {
                report::note(&format!("{error}; asking S3 for the bucket's region, better configure it"));
                Box::pin(self.plan(query, Region::Detected).await?.execute()).await
            }
            (result, _) => result,
        }
    }

    async fn plan(&self, query: ParsedQuery, region: Region) -> Result<PlannedQuery> {
        let mut planned = self.ctx.plan_query(query).await?;
        location::register(self.ctx, planned.logical_plan_mut(), region).await?;
        Ok(planned)
    }
}

/// SHOW answers a question, and a part of the answer is none.
fn show_all_rows_of_answers(statement: &Statement, options: &mut PrintOptions) {
    if let Statement::Statement(statement) = statement
        && matches!(statement.as_ref(), ast::Statement::ShowVariable { .. })
    {
        options.maxrows = MaxRows::Unlimited;
    }
}

/// So do plans and descriptions of tables.
fn show_all_rows_of_plans(plan: &LogicalPlan, options: &mut PrintOptions) {
    if matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_)) {
        options.maxrows = MaxRows::Unlimited;
    }
}
