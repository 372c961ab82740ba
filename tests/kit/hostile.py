"""Captions that try to be more than text, as the web and models write them."""

from __future__ import annotations

OUTSIDE = "http://outside.invalid"
"""No page may ever ask for anything there."""

_SET = "window.hacked=1"

CAPTIONS: tuple[str, ...] = (
    # script
    f"<script>{_SET}</script>",
    f"<img src=x onerror={_SET}>",
    f'<img src="{OUTSIDE}/a.png">',
    f"<svg onload={_SET}>",
    f"<svg><script>{_SET}</script></svg>",
    f'<iframe src="javascript:{_SET}"></iframe>',
    f'<a href="javascript:{_SET}">click</a>',
    f"<body onload={_SET}>",
    f"<details open ontoggle={_SET}>x</details>",
    f"<input autofocus onfocus={_SET}>",
    f'"><script>{_SET}</script>',
    f"'-->*/</style></script><script>{_SET}</script>",
    f"</div></div><img src=x onerror={_SET}>",
    f"<math><mtext><img src=x onerror={_SET}></mtext></math>",
    f"<noscript><p title='</noscript><img src=x onerror={_SET}>'>",
    f"&lt;script&gt;{_SET}&lt;/script&gt;",
    f"&#60;img src=x onerror={_SET}&#62;",
    f"<style>body{{background:url({OUTSIDE}/b)}}</style>",
    f'<link rel=stylesheet href="{OUTSIDE}/c.css">',
    f'<meta http-equiv=refresh content="0;url={OUTSIDE}">',
    f'<form action="{OUTSIDE}"><button>send</button></form>',
    f"<base href={OUTSIDE}/>",
    # Markdown and what Streamlit adds to it
    f"![picture]({OUTSIDE}/d.png)",
    f"[link]({OUTSIDE}/e)",
    f"[![nested]({OUTSIDE}/f.png)]({OUTSIDE})",
    f"<{OUTSIDE}/g>",
    "# heading\n- list\n> quote\n\n| a | b |\n|---|---|",
    "**bold** _italic_ `code` ~~gone~~",
    ":red[colour] :material/delete: :streamlit: :smile:",
    r"$$\int_0^1 \href{javascript:alert(1)}{x}$$",
    r"$\includegraphics{x}$ \(x\) \[y\]",
    "```js\nalert(1)\n```",
    # what is not seen, or moves what is seen
    "invoice_\u202efdp.exe",
    "\u2066\u2067isolates\u2069\u2069 \u200fright",
    "zero\u200bwidth\u200cjoin\u200der\ufeffmark",
    "tag\U000e0041\U000e0042 characters",
    "control\x00\x07\x1b[31mred\x1b[0m\x7f",
    "lines\nand\u2028separators\u2029here\x0b\x0c",
    "Z\u0351\u036b\u0343\u036a\u0302A\u0334\u0335\u031eL\u033dG\u0332O",
    "x" * 5_000,
)

FEW = (
    f"<script>{_SET}</script> a cat",
    f'<img src=x onerror="{_SET}"> a dog',
    f"![a fish]({OUTSIDE}/fish.png)",
    f"[a bird](javascript:{_SET})",
    f"$\\href{{{OUTSIDE}}}{{a}}$ **bold** :red[a horse]",
    "a cow \u202egod a ton\u202c \u200b here",
    "</figure></div></div><iframe srcdoc='<b>hi</b>'></iframe>",
)
"""One of each kind, for pages that show them in many ways."""

SECRET = "the-secret-of-another-file"

SQL_ATTACKS = (
    "copy (select 1) to '{out}'",
    "with x as (copy (select 1) to '{out}') select 1",
    "select * from (with x as (copy (select 1) to '{out}' (format parquet)) select 1)",
    "select (with x as (copy (select 1) to '{out}') select 1)",
    "with x as (insert into samples values (1) returning *) select * from x",
    "with x as (delete from samples returning *) select * from x",
    "export database '{out}'",
    "attach '{out}' as other",
    "attach '{secret}' as other (read_only)",
    "install httpfs",
    "load '{secret}'",
    "create table t as select 1",
    "create secret s (type s3, key_id 'a', secret 'b')",
    "drop view samples",
    "insert into captions select * from captions",
    "update captions set text = 'x'",
    "delete from captions",
    "pragma database_list",
    "set enable_external_access = true",
    "set memory_limit = '100GB'",
    "reset lock_configuration",
    "call pragma_version()",
    "explain analyze select 1",
    "checkpoint",
    "select 1; copy (select 1) to '{out}'",
    "select * from read_csv('{secret}')",
    "select * from read_csv_auto('{secret}', header = false)",
    "select * from sniff_csv('{secret}')",
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from read_json('{secret}')",
    "select * from '{secret}'",
    'select * from "{secret}"',
    "select * from glob('{folder}/*')",
    "select * from read_parquet('{folder}/store/index/*.parquet')",
    "select * from parquet_scan('{folder}/store/index/00000.parquet')",
    "select * from read_csv('https://example.org/x.csv')",
    "select * from query('copy (select 1) to ''{out}''')",
    "select * from query_table('{secret}')",
    "select getenv('HOME')",
    "select * from request",
    "select * from python_variable",
    "select * from arrow_scan(1, 2, 3)",
    "select * from pandas_scan(140000000000000)",
    "select * from json_execute_serialized_sql('[\"copy\"]')",
)
"""What foreign SQL may try. {secret} is a file beside the store, {out} must not come to be."""
