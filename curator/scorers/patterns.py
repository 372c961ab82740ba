"""Patterns for the flags of `curator.scorers.text`: English, any apostrophe, any case.

The phrases are those that models or web pages write and people describing an image do not. No
pattern backtracks over more than a fixed number of characters.
"""

from __future__ import annotations

import re


def _phrases(*alternatives: str, before: str = "") -> re.Pattern[str]:
    """Compile a pattern; `~` matches a straight, curly or spaced apostrophe ("do n~t")."""
    pattern = before + "(?:" + "|".join(alternatives) + ")"
    return re.compile(pattern.replace("~", " ?['\u2019\u02bc]"), re.IGNORECASE)


# Characters allowed before the first word: quotes, Markdown, brackets, list marks.
_OPENING = r"[\s\"'\u201c\u2018*_#>(\[\-]*"
_PICTURE = r"(?:image|picture|photo|photograph|pic|scene|snapshot|illustration|painting)"
_SHOWS = (
    r"(?:shows?|showing|features?|featuring|depicts?|depicting|captures?|capturing|displays?"
    r"|contains?|presents?|portrays?|illustrates?|is (?:of|an?|showing|depicting)"
    r"|(?:we|you) (?:can )?see|there (?:is|are))"
)

BOILERPLATE = _phrases(
    rf"(?:(?:in )?(?:this|the)|an?)(?: \w+)? {_PICTURE},? (?:\w+ly )?{_SHOWS}\b",
    rf"(?:in|from) (?:this|the)(?: \w+)? {_PICTURE}\b",
    rf"(?:this|it) (?:is|shows|depicts) (?:an?|the) (?:\w+ )?{_PICTURE} (?:of|that|showing)\b",
    r"(?:sure|certainly|of course|okay|absolutely)[,!.:]",
    r"here(?: is|~s| are) (?:an?|the|your|some)(?: [\w-]+){0,3} "
    r"(?:caption|description|summary|alt text)",
    r"(?:caption|description|answer|alt[- ]text|image description)\s*:",
    before=_OPENING,
)

_CANNOT = r"(?:can ?not|can~t|could not|couldn~t|won~t|will not|am (?:unable|not able) to)"
_SERVE = (
    r"(?:assist|help|provide|describe|identify|generate|create|write|view|access|determine|comply"
    r"|fulfill?|process|analy[sz]e|answer|caption|recogni[sz]e|discuss|engage|continue|produce"
    r"|offer|interpret|tell|give|do that|make"
    r"|see (?:(?:the|any|an|this) )?(?:image|picture|photo)s?)"
)
_MODEL = r"(?:ai|artificial intelligence|(?:large )?language model|text-based|virtual assistant)"
_MISSING = r"(?:image|picture|photo|caption|description)"
_GIVEN = r"(?:provided|attached|uploaded|included|available|loaded|displayed|found|visible|opened)"
# Matched at the beginning of each sentence: further in, the same words are the text of a sign, or
# what a person in the image could not do.
REFUSAL = _phrases(
    r"i(?: am|~m) (?:\w+ )?(?:sorry|afraid i|unable to|here to help|designed to)\b",
    r"i(?: am|~m) (?:\w+ )?not (?:able|allowed|permitted|going|sure what|comfortable|capable)\b",
    rf"(?:i|we) (?:\w+ )?{_CANNOT} (?:\w+ly )?{_SERVE}\b",
    # The same without "I": "Unable to process this image."
    rf"(?:unable to|can ?not|can~t) (?:\w+ly )?{_SERVE}\b",
    r"i(?:~d| would)? (?:rather not|prefer not to)\b",
    r"sorry,? (?:but |, )?(?:i|we|this|that)\b",
    r"i (?:apologi[sz]e|refuse to|(?:must|have to|will) (?:\w+ly )?decline"
    r"|have no (?:way|ability|access))\b",
    rf"i (?:would )?need (?:to see )?(?:the|an) {_PICTURE}",
    r"i (?:currently )?do(?: not|n~t) (?:(?:have|possess) (?:the |an? |any )?"
    r"(?:ability|capability|access|image|(?:enough )?information)|feel (?:comfortable|able)"
    r"|support|see (?:an|any) )",
    rf"(?:as|i(?: am|~m) (?:\w+, |just |only )?) ?an? (?:\w+ )?{_MODEL}\b",
    r"i(?: am|~m) (?:programmed|trained) (?:to|not)\b",
    r"it(?: is|~s) (?:not possible|impossible) (?:for me )?to\b",
    # The model saw no image.
    rf"(?:there(?: is|~s) )?no {_MISSING} (?:(?:was|has been|is) )?{_GIVEN}",
    rf"(?:(?:the|this|your) (?:requested )?)?{_MISSING} "
    rf"(?:(?:is|was|has|could|can) ?)?(?:not|n~t) (?:be |been )?{_GIVEN}",
    rf"it (?:seems|appears|looks)(?: like)?(?: that)? (?:there is )?no {_MISSING}\b",
    r"it (?:seems|appears|looks)(?: like)?(?: that)? you (?:have|did)(?: not|n~t)\b",
    rf"there is(?: not|n~t) (?:an?|any) {_PICTURE} (?:{_GIVEN}|in your|to describe)\b",
    r"you (?:have|did)(?: not|n~t) (?:\w+ )?(?:attach|upload|provid|includ|shar|sen[dt])",
    rf"(?:it (?:seems|appears|looks) (?:like|as if|that) )?(?:the|your) {_PICTURE}s? "
    r"(?:(?:that )?you (?:sent|uploaded|provided|attached|shared) )?"
    r"(?:did(?: not|n~t) (?:come through|load|upload|attach)|failed to (?:load|upload)"
    r"|(?:is|was)(?: not|n~t) (?:visible|accessible) to me)\b",
    # An error message of a service instead of a model's answer.
    r"(?:(?:the|this|your) )?(?:image|picture|content|request|response|output) "
    r"(?:(?:is|was|has been) )?(?:blocked|filtered|rejected|flagged|refused|timed out)"
    r"(?=[.!]?\]?\s*\Z| due to\b| because\b| (?:by|for) (?:\w+ )?(?:safety|content|policy))",
    r"(?:internal )?(?:server )?error\s*(?:\d{3}\s*)?:|error code\b",
    r"(?:(?:could|can|would) you )?please (?:provide|upload|attach|share|send)\b",
    r"(?:this|the|your) (?:content|request|image|prompt) (?:may )?(?:violates?|goes against)\b",
    before=_OPENING
    + r"(?:(?:but|however|unfortunately|regrettably|(?:my )?apologies|sorry|hi|hello"
    rf"|i~m here to help|i~d be happy to help|without (?:the|an) {_PICTURE})[,.!]? (?:but )?)*",
)

SPEAKER = _phrases(r"(?:user|human|assistant|system|ai|bot|question|prompt)\s*:", before=r"\s*")

SPAM = _phrases(
    r"\b(?:free|fast|worldwide|express) (?:shipping|delivery)\b",
    r"\bclick (?:here|the link|to (?:enlarge|view|zoom|see|buy))",
    r"\b(?:buy|shop|order|book|call|subscribe|sign up|register) (?:now|online|today)\b",
    r"\badd to (?:cart|bag|basket|wish ?list)\b",
    r"\b(?:best|lowest|low|cheap|wholesale|factory|retail|sale|special) (?:prices?|deals?)\b",
    r"\b(?:discounts?|coupons?|promo(?:tion)? codes?|clearance|wholesale|dropship\w*|cashback)\b",
    r"\b\d{1,3} ?% (?:off|discount|cotton|polyester)",
    r"\b(?:money back|in stock|out of stock|pre-?order|limited time|special offer|hot sale)\b",
    r"\b(?:new arrivals?|best ?sellers?|top quality|high quality|brand new|all rights reserved)\b",
    r"\b(?:free|hd|full) (?:download|wallpapers?|printables?|vectors?|clip ?art)\b",
    r"\bdownload (?:now|free|hd|royalty)",
    r"\broyalty[- ]free\b|\bstock (?:photos?|images?|photography|vectors?|illustrations?)\b",
    r"\b(?:shutterstock|istock(?:photo)?|getty images|dreamstime|alamy|depositphotos|123rf)\b",
    r"\b(?:pinterest|ebay|etsy|aliexpress|alibaba)\b",
    r"\b(?:visit|follow|contact|check out|message|dm) (?:us|our|me|my)\b",
    r"\b(?:link in (?:the )?bio|like and share|read more|learn more|terms apply)\b",
    r"\u00a9|\(c\) ?\d{4}\b",
    r"\b(?:sku|asin|isbn|upc|mpn|ean|(?:item|model|product) (?:no|number|code))\b[.:# ]*\w*\d",
    r"[$\u20ac\u00a3\u00a5\u20b9] ?\d|\b\d+(?:[.,]\d\d)? ?(?:usd|eur|gbp|euros?|dollars)\b",
    r"\bprice ?:|\bper (?:piece|unit|dozen)\b",
    # Telephone numbers: with a plus, grouped as in North America, or after a word such as "phone".
    r"(?<![\w.])\+\d[\d ().-]{8,16}\d(?!\w)",
    r"(?<![\w.])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)",
    r"\b(?:tel|phone|call|whatsapp|fax)(?: us)?[.:]? ?(?:at )?\+?[\d(][\d ().-]{6,}",
)

_TOP_LEVEL = (
    r"(?:com|net|org|info|biz|shop|store|online|edu|gov|io|de|fr|ru|cn|jp|it|nl|es|co\.[a-z]{2})"
)
URL = _phrases(
    r"\bhttps?://|\bwww\.\w",
    rf"(?<![\w@.-])[a-z0-9-]{{2,63}}\.{_TOP_LEVEL}(?![\w-])",
    r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}\.[a-z]{2,}",
)

_EXTENSION = (
    r"\.(?:jpe?g|jpe|png|gif|webp|bmp|tiff?|heic|heif|avif|svg|psd|eps|mp4|mov|pdf|cr2|nef)"
)
_CAMERA = (
    r"(?:img|image|imag|_?dsc[nf]?|dcim|pict?|pxl|mvimg|gopr|p|wp|cimg|sam|hpim|screen ?shot"
    r"|capture|scan|photo|picture|untitled|unnamed|default|file|page|slide|figure|fb_img"
    r"|whatsapp image|snapchat|download|attachment|wallpaper|banner|logo|thumb(?:nail)?)"
)
# An extension anywhere, or a caption that consists only of a file name.
FILE_NAME = _phrases(
    rf"[\w)\]-]{_EXTENSION}\b",
    # IMG_1234, DSC00012, Screenshot 2021-03-04 at 10.20.30, image-3-1024x768-scaled
    rf"^{_CAMERA}[-_ ]*\(?\d[\d.:x]*[a-z]?"
    r"(?:[-_ ()]+(?:\d[\d.:x]*[a-z]?|[a-z]{1,2}|copy|edit(?:ed)?|scaled|large|small))*[\s)]*$",
    r"^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    r"^(?=\S*\d)[0-9a-f]{16,64}$",
    # One joined word with a number in it: product_main_0042_large
    r"^(?=\S*\d)[a-z0-9]+(?:[_-][a-z0-9]+){2,}$",
    r"^(?=[_ -]*\d)[\d_ -]+(?:x\d+)?$",
)

_FIELD = (
    r"(?:subjects?|setting|mood|style|background|foreground|colou?rs?|lighting|objects?|composition"
    r"|scene|caption|description|title|tags|keywords|details?|short|long|detailed|summary|location"
    r"|atmosphere|action|main subject)\s?:\s*"
)
# Markup that a page, a program or a chat window would not show as plain letters.
HTML = _phrases(
    r"</?(?:a|abbr|article|audio|b|big|blockquote|body|br|button|center|cite|code|dd|del|div|dl|dt"
    r"|em|embed|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input"
    r"|ins|label|li|link|main|mark|meta|nav|object|ol|option|p|picture|pre|s|script|section|select"
    r"|small|source|span|strong|style|sub|sup|svg|table|tbody|td|th|thead|title|tr|u|ul|video"
    r"|answer|conclusion|description|response|output)(?:\s[^<>]{0,500})?/?>",
    r"</[a-z][\w:-]{0,30}\s*>|<[a-z][\w:-]{0,30}\s*/>",
    r"<!--|<!doctype|<\?(?:php|xml)|<!\[cdata",
    r"&(?:amp|lt|gt|quot|apos|nbsp|copy|reg|trade|euro|deg|[mn]dash|[lr]squo|[lr]dquo|[lr]aquo"
    r"|hellip|middot|bull|szlig|[a-z]{1,2}(?:acute|grave|circ|uml|tilde|cedil|ring|slash|lig)"
    r"|#x?\w{2,6});",
    r"!?\[[^\]\n]{0,200}\]\([^)\s]{1,500}\)|!\[[^\]]{0,200}\]\([^)]{0,500}\)",
    # Markdown: fences, headings, bold type, tables, a list mark followed by another one
    r"`{3}|(?:\A|\s)#{2,6}\s+\S|\A#\s+[^\W\d]|\*\*[^\s*][^*]{0,500}\*\*|\|\s*:?-{2,}:?\s*\|",
    r"\A[-*+\u2022]\s+\S.{0,600}?\s[-*+\u2022]\s+\S|\A\|.{1,200}?\|.{1,200}?\|",
    # several named fields: "Subject: a dog Mood: happy"
    r"\A(?:[-*]\s)?" + _FIELD + r"\S.{0,600}?[\s.]" + _FIELD + r"\S",
    # JSON, whole or cut, and code
    r"\A\{\s*\w{1,40}\s*:\s*[\"'\[{]|\\n(?:\\n|\s|(?-i:[A-Z*#-])|\Z)",
    r"\A[\[{]\s*(?:\"[^\"]{0,200}\"|'[^']{0,200}'|[{\[])\s*[:,{\]\"'}]|\A\{\s*\"|\"\s*:\s*[\"\[{]",
    r"\A(?:print|console\.log)\s*\(|\A(?:def|function)\s+\w+\s*\(|\A(?:const|let|var)\s+\w+\s*="
    r"|\A[a-z_]\w{0,30}\s*=\s*[\"']|\{\{[^{}]{0,200}\}\}|\$\{\w{1,40}\}|\[caption\s+id=",
    r"\\(?:begin|end|text\w{0,2}|frac|boxed|mathrm|mathbf|section|item|caption|emph)\b\s*[\[{]",
    r"\\[()\[\]]|\[/(?:b|i|u|url|img|quote|code|size|color)\]",
)
# The text of a sign or label in the image is content, not spam.
QUOTED = re.compile(r"\"[^\"]{1,200}\"|\u201c[^\u201d]{1,200}\u201d")
