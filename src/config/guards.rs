//! The switches of the rules that guard queries against defects of DataFusion 55.2, as the list of all settings describes them.

use super::settings::{Setting, described, field};
use super::values::boolean;

pub(super) const OUTER_JOIN_GUARD_ENABLED: Setting = field!(
    outer_join_guard_enabled,
    bool::to_string,
    boolean,
    described(
        "outer_join_guard.enabled",
        "switch",
        "true or false",
        "false",
        "Keeps DataFusion 55.2 from taking a column of the null-supplying input of an outer join for constant above the \
         join, where it leaves out sorts and closes groups too early. Turning it off gives those wrong rows back.",
        "false: outer joins promise what the plain engine's do",
    )
);

pub(super) const DYNAMIC_FILTER_GUARD_ENABLED: Setting = field!(
    dynamic_filter_guard_enabled,
    bool::to_string,
    boolean,
    described(
        "dynamic_filter_guard.enabled",
        "switch",
        "true or false",
        "false",
        "Removes dynamic filters that DataFusion 55.2 has put on another column of the same name, where they drop \
         rows that the query needs. Turning it off gives those wrong rows back.",
        "false: dynamic filters stay where the plain engine puts them",
    )
);

pub(super) const MEMORY_GUARD_ENABLED: Setting = field!(
    memory_guard_enabled,
    bool::to_string,
    boolean,
    described(
        "memory_guard.enabled",
        "switch",
        "true or false",
        "false",
        "Keeps operators that DataFusion 55.2 does not limit (windows, cross joins, exchanges that spill) within the \
         limit of the memory pool. Turning it off gives back memory that nobody counts, and exchanges that hang.",
        "false: these operators run as in the plain engine",
    )
);

pub(super) const NESTED_LOOP_JOIN_GUARD_ENABLED: Setting = field!(
    nested_loop_join_guard_enabled,
    bool::to_string,
    boolean,
    described(
        "nested_loop_join_guard.enabled",
        "switch",
        "true or false",
        "false",
        "Keeps nested-loop joins of DataFusion 55.2 from returning wrong rows when they spill: they spill where \
         that is right and fail with a clear error where it is not. Turning it off gives those wrong rows back.",
        "false: nested-loop joins spill as in the plain engine, with wrong rows for some join types",
    )
);
