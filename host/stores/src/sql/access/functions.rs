//! Functions that any plugin may call: they change nothing and stay within bounds.

/// By their names in lower case. What only one of the servers has is no harm to the other.
#[rustfmt::skip]
const HARMLESS: &[&str] = &[
    "abs", "array_agg", "avg", "bool_and", "bool_or", "ceil", "ceiling", "char_length",
    "coalesce", "concat", "concat_ws", "count", "current_date", "current_time",
    "current_timestamp", "date", "date_add", "date_format", "date_part", "date_sub",
    "date_trunc", "datediff", "day", "dense_rank", "first_value", "floor", "from_unixtime",
    "gen_random_uuid", "greatest", "group_concat", "hour", "if", "ifnull", "json_agg",
    "json_array", "json_build_object", "json_extract", "json_object", "json_unquote",
    "json_value", "jsonb_agg", "jsonb_build_object", "jsonb_set", "lag", "last_value", "lead",
    "least", "left", "length", "localtime", "localtimestamp", "lower", "ltrim", "max", "md5",
    "min", "minute", "mod", "month", "now", "nullif", "octet_length", "position", "pow", "power",
    "quarter", "rank", "replace", "right", "round", "row_number", "rtrim", "second", "sha2",
    "sign", "sqrt", "string_agg", "substr", "substring", "sum", "timestampdiff", "to_char",
    "to_date", "to_number", "to_timestamp", "trim", "trunc", "truncate", "unix_timestamp",
    "upper", "utc_timestamp", "uuid", "values", "year",
];

pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order() {
        assert!(HARMLESS.is_sorted());
        assert!(is_harmless("coalesce") && !is_harmless("pg_sleep"));
    }
}
