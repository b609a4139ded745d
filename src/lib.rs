//! Slipstream: a performance layer that is installed into an unmodified Apache DataFusion session.
//!
//! One line gives an existing [`SessionContext`](datafusion::prelude::SessionContext) the layer; the same SQL
//! then runs under it, and the plain engine stays one switch away:
//!
//! ```
//! use datafusion::prelude::SessionContext;
//! use datafusion_slipstream::{Slipstream, SlipstreamContextExt};
//! use futures::TryStreamExt;
//!
//! # #[tokio::main]
//! # async fn main() -> datafusion::common::Result<()> {
//! let ctx = SessionContext::new();
//! ctx.install_slipstream(Slipstream::default())?;
//!
//! let rows: Vec<_> = ctx.query("SELECT 1 + 1 AS two").await?.try_collect().await?;
//! assert_eq!(rows[0].num_rows(), 1);
//!
//! ctx.query("SET slipstream.enabled = false").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The road of one query
//!
//! ```text
//!  SQL text ─► session ─► (DataFusion: parser, optimizer, planner) ─► physical ─► operator ─► rows
//!                 ▲                                                       │           │
//!                 └──────────── insight (system tables) ◄── monitor ◄─────┴───────────┘
//! ```
//!
//! The modules below are the stations of that road, on the ground files `config`, `scope`, `fingerprint`, `clock` and `error`.
//! A module imports only those that stand on a lower row than its own, never a sibling
//! (`docs/ARCHITECTURE.md` has the picture, and a test enforces it).

#![forbid(unsafe_code)]

// Reading order: the road, then the ground.
mod session;

mod hint;
mod insight;
mod physical;

mod operator;

mod memory;
mod monitor;
mod store;

mod clock;
mod config;
mod error;
mod fingerprint;
mod scope;

pub use clock::{Clock, SystemClock};
pub use config::{
    CacheMode, ProcessOptions, RULE_NAMES, SETTINGS, Setting, SlipstreamOptions, configuration_markdown,
};
pub use memory::QueryPool;
pub use monitor::{QueryLog, QueryRecord, QueryStatus};
pub use scope::{RuleReport, Verdict};
pub use session::{
    ParsedQuery, PlannedQuery, QueryStream, Slipstream, SlipstreamBuilderExt, SlipstreamContextExt,
};
pub use store::TableVersions;
