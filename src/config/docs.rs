//! `docs/CONFIGURATION.md`, written from the list of settings.

use std::fmt::Write;

use super::SETTINGS;

const HEAD: &str = "\
# Configuration

<!-- Generated from `src/config/settings.rs`; a test fails when this file is stale. To write it anew:
     UPDATE_DOCS=1 cargo test --test it configuration -->

Every setting can be changed while the session runs (`SET slipstream.<name> = <value>`), put back
(`RESET slipstream.<name>` through `ctx.query()` and in the shell, `SET slipstream.<name> = DEFAULT` everywhere,
since DataFusion's own `RESET` knows the prefix `datafusion` alone), and read (`SHOW slipstream.<name>`, and the view
`information_schema.df_settings` where `datafusion.catalog.information_schema` is on). A query keeps the values it
started with. The environment variable beside each name sets the value that a session starts with; a value given in
code goes before it.

A wrong name is an error that names the nearest one, a wrong value is an error that names the accepted range:

```sql
SET slipstream.query_log.enable = true;
-- unknown setting 'slipstream.query_log.enable'. Did you mean 'query_log.enabled'?
```
";

/// The manual page of all settings, in Markdown.
pub fn configuration_markdown() -> String {
    let mut page = HEAD.to_owned();
    for setting in SETTINGS {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## `slipstream.{}`\n\n{}\n\n\
             | default | accepts | unit | zero, false or empty | environment |\n\
             |---|---|---|---|---|\n\
             | `{}` | {} | {} | {} | `{}` |\n",
            setting.name,
            setting.purpose,
            setting.default_text(),
            setting.accepts,
            setting.unit,
            setting.zero,
            setting.variable(),
        );
    }
    page
}
