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
