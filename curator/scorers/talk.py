"""Patterns of chat models' remarks around a caption: reasoning, introductions, offers, options.

The phrases are those that assistants write and people describing an image do not. Offers and
introductions of one caption can be removed (`curator.captioners.answers`); a text with any of the
others is not a caption. English, and the usual openings in ten other languages.
"""

from __future__ import annotations

import re


def _any(*alternatives: str, before: str = "", after: str = "") -> re.Pattern[str]:
    """Compile a pattern; `~` matches a straight or curly apostrophe, or none."""
    pattern = f"{before}(?:{'|'.join(alternatives)}){after}"
    return re.compile(pattern.replace("~", "['\u2019ʼ]?"), re.IGNORECASE)


_MARKS = r"[\s\"'\u201c\u2018*_#>(\-]*"
_CAPTION = (
    r"(?:captions?|descriptions?|alt[- ]?texts?|sentences?|summar(?:y|ies)|versions?|titles?"
    r"|transcriptions?)"
)
_DATA = r"(?:json|result|output|response|answer)"
_OF_PICTURE = (
    r"(?:\s(?:for|of) (?:the|this|your) (?:given |attached )?(?:image|picture|photo)(?:graph)?)?"
)
_ASKED = (
    r"(?:wants?|would like|asks?|asked|requests?|requested|is asking|needs|provided|uploaded|sent"
    r"|has (?:asked|provided|uploaded|given|requested|sent)|gave me|says|said)"
)
_WRITE = (
    r"(?:describe|write|caption|produce|generate|provide|output|create|craft|answer|respond|look"
    r"|analy[sz]e|identify|figure out|think|examine|keep it|make sure|focus on|come up with)"
)

REASONING = _any(
    rf"the (?:user|prompt|task|question|instructions?|request) (?:\w+ )?{_ASKED}\b",
    rf"(?:we|i) (?:need to|should|must|have to|are asked to|am asked to|will|~ll) {_WRITE}\b",
    rf"let(?:~s| me| us) (?:\w+ )?{_WRITE}\b",
    r"let~s see\b",
    r"(?:okay|ok|alright|hmm+),? so\b",
    r"i(?:~m| am) (?:now |currently )?(?:focusing on|analy[sz]ing|trying to|examining|going to)\b",
    rf"to {_WRITE}\b[^\n.!?]{{0,60}}\b(?:i|we) (?:will|need|should|must|have|first|~ll)\b",
    r"looking at (?:the|this)\b[^\n.!?]{0,40}, (?:i|we) (?:need|should|must|have to|will)\b",
    r"step (?:1|one)\s*:",
    r"(?:my )?(?:thinking|thought|reasoning) process\s*:",
    r"here(?:~s| is) my thought process\b",
    r"(?:wait|hmm+),|(?:思考|推理)(?:过程)?[:：]",
    r"(?:用户|让我|嗯[，,]|我(?:需要|现在|来看))",
    r"ユーザー(?:は|が|の)",
    r"(?:der (?:benutzer|nutzer) (?:möchte|will|fragt|bittet)|l~utilisateur (?:demande|veut"
    r"|souhaite)"
    r"|el usuario (?:pide|quiere|solicita)|l~utente (?:chiede|vuole)|o usuário (?:pede|quer)"
    r"|пользователь (?:хочет|просит))",
    before=_MARKS
    + r"(?:(?:okay|ok|alright|all right|hmm+|well|so|first|now|right|got it|好的|首先)"
    r"[,.!\u2026，。]*\s*)*",
)
"""Matched at the beginning of an answer: reasoning without tags, so its end is unknown."""

LEAD_IN = _any(
    rf"(?:here(?:~s| is| are)|this is|below is"
    rf"|the following is)\b[^\n:.!?]{{0,60}}\b{_CAPTION}\b[^\n:.!?]{{0,80}}:",
    rf"here(?:~s| is) (?:the|my|your) (?:\w+ )?{_DATA}\b[^\n:.!?]{{0,40}}:",
    r"here (?:it is|you go)\s*[:!.]|here(?:~s| is) what (?:i|you)\b[^\n:.!?]{0,40}:",
    # "The caption on the poster reads ..." is about a poster.
    rf"(?:the|an?|my|one)\s(?:\w+\s){{0,2}}?(?:caption|description|alt[- ]?text){_OF_PICTURE}"
    r"\s(?:(?:could|would|might|may|can) )?(?:is|be|reads)\s*(?::|(?=[\"\u201c*]))",
    r"(?:hier ist|voici|aquí (?:está|tienes|hay)|ecco|aqui está|вот)\s[^\n:.!?]{0,80}:",
    r"(?:以下是|这是|这里是|下面是|以下は|次は)[^\n:：。]{0,30}[:：]",
    before=_MARKS
    + r"(?:(?:sure|certainly|of course|absolutely|okay|ok|great|yes|gladly|no problem|好的|当然)"
    r"(?: thing)?[,.!，！。]*\s*|based on [^\n:.!?,]{0,40},\s*)?",
    after=r"[\s*_]*",
)
"""Introduces one caption, which follows it."""

OPENER = _any(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|gladly|with pleasure)\s*[!.]",
    r"(?:sure|certainly|absolutely)\s*,(?= (?:the|an?|this|in|here|two|three|there)\b)",
    r"(?:好的|当然可以|当然)[！!。，,]",
    before=_MARKS,
    after=r"\s*",
)

_NAMES = (
    r"(?:caption|title|description|image description|photo description|alt[- ]?text"
    r"|alternative text"
    r"|answer|response|output"
    r"|(?:bild)?beschreibung|bildunterschrift|légende|descripción|leyenda|legenda|descrição"
    r"|didascalia|descrizione|описание|подпись"
    r"|(?:图片|图像|画面)?(?:描述|标题|说明|字幕)"
    r"|キャプション|(?:画像の)?説明|설명|캡션)"
)
_STYLE = (
    r"(?:short(?:er)?|long(?:er)?|detailed|brief|concise|simple|formal|casual|funny|humorous"
    r"|creative|poetic|playful|professional|descriptive|factual|first|second|another|alternative)"
)
LABEL = _any(
    rf"(?:(?:{_STYLE}|one-sentence|image|photo|picture|final|english|suggested"
    rf"|generated|my|the|a)[\s-]+){{0,3}}{_NAMES}{_OF_PICTURE}(?: \(\w{{1,20}}\))?"
    rf"\s*[:：](?!//)\s*",
    rf"#{{1,6}}\s*(?:(?:short|detailed|brief|image|photo|picture"
    rf"|final)[\s-]+){{0,2}}{_NAMES}\s*:?\s*\n+",
)
"""A label before the caption: "Caption: ...", or such a heading."""

FINAL_LABEL = re.compile(
    r"(?:\A|\n)[\s*_#>]*final[\s-]+(?:answer|caption|description|output|version|response)"
    r"[\s*_]*:[\s*_]*",
    re.IGNORECASE,
)
"""Separates the answer, which follows it, from reasoning, which may precede it."""

OFFER = _any(
    r"thank(?:s| you) for (?:sharing|uploading|providing|sending|the (?:image|picture|photo))",
    r"(?:hi|hello)(?: there)?[!.,]?\s*(?:\Z|(?=how can|how may))",
    r"(?:what an? |this is an? )?(?:great|nice|lovely|beautiful|wonderful|interesting) "
    r"(?:image|picture|photo|shot)!",
    r"(?:sure,? |yes,? )?i (?:can|will|~ll|would be happy to) (?:help|assist)\b",
    r"(?:please )?let me know\b",
    r"(?:please )?(?:feel free to|do(?: not|n~t) hesitate to) (?:ask|reach|contact|let|share|modify"
    r"|adjust|use|edit|change)",
    r"if you(?:~d like| would like| need| want| have any| prefer)\b.{0,80}"
    r"(?:let me|just ask|i can|i~ll|i could|feel free|please|tell me|happy)",
    r"(?:would|do) you (?:like|want) me to\b",
    r"would you like (?:a|another|more|to|the)\b.{0,60}(?:version|caption|description|detail\w*"
    r"|one)\b",
    r"(?:shall|should|can|may|could) i (?:help|make|add|write|provide|describe|assist|shorten"
    r"|expand)\b",
    r"is there anything (?:else|specific|in particular)\b",
    r"(?:i )?hope (?:this|that|it) (?:helps|works|meets|is (?:what|helpful))",
    r"(?:i(?:~m| am|~d be| would be)|always|more than) (?:glad|happy) to (?:help|assist|provide"
    r"|adjust"
    r"|make|revise|write|refine)",
    r"(?:how|what) (?:can|may|would you like|else would you like) (?:i|me)\b",
    r"(?:can|could|would) you (?:please )?(?:clarify|specify|tell me|give me more|provide more)\b",
    r"(?:which|what) (?:style|format|language|tone|part|aspect)s? (?:do|would|should) (?:you|i)\b",
    r"\(?(?:word|character|token) count\b|\(?(?:note|disclaimer)\s*:",
    r"need (?:a|something) (?:shorter|longer|different|more)\b.{0,40}\?",
    r"(?:lassen sie|lass) (?:es )?mich wissen|wenn (?:sie|du) .{0,40}(?:möchten|möchtest"
    r"|brauchen|brauchst|wünschen)",
    r"soll ich\b|kann ich (?:ihnen|dir)\b|n~hésite[zr]? pas|si vous (?:souhaitez|voulez"
    r"|avez besoin|désirez)",
    r"faites(?:-| )moi savoir|souhaitez-vous|voulez-vous que|(?:avísame|házmelo saber"
    r"|déjame saber)",
    r"(?:si|se) (?:necesitas?|quieres?|deseas?|vuoi|desideri|hai bisogno|precisar|quiser"
    r"|desejar)\b",
    r"¿(?:te|le) gustaría|¿quieres que|fammi sapere|me avise|me diga|gostaria que eu",
    r"дайте (?:мне )?знать|если (?:вам|вы|хотите)\b",
    r"(?:如果(?:您|你)?|如)(?:需要|想|有)|请告诉我|需要我|希望这",
    r"(?:必要|ご希望|他に).{0,20}(?:あれば|ください|ますか)|お知らせください",
    r"(?:필요|원)하(?:시|신|실)?(?:면|다면)|알려 ?주세요",
    before=_MARKS + r"(?:(?:and|also|but|so|otherwise)[,.]? )?",
)
"""Matched at the beginning of a sentence: the model offers more, or asks a question."""

_MANY = (
    r"(?:(?:two|three|four|five|six|ten|[2-9]|10|several|some|a few|multiple|different|various)\b"
    r"(?: \w+){0,3}? )"
)
_CHOICES = (
    r"(?:options|captions|descriptions|versions|variations|alternatives|suggestions|possibilities"
    r"|ideas|choices|variants|titles)"
)
_STYLED = rf"{_MARKS[:-1]}{{0,5}}{_STYLE}(?: {_CAPTION})?[*_]*:[*_]*\s"
SEVERAL = _any(
    # "Here are two versions of the same statue" shows two statues.
    rf"(?:here(?:~re| are)|below are)\b[^\n:.]{{0,60}}?\b{_CHOICES}\b(?:(?! of\b)|[^\n.]{{0,60}}:)",
    r"[.!?][\"\u201d]?\s+(?:(?-i:OR|Or)\b,?\s|alternatively\b[,:]|another (?:option|version)\b)",
    rf"(?:\A|[.!?]\s){_STYLED}\S.{{0,600}}?[.!?][\"\u201d*_]*\s{_STYLED}",
    r"\A(?:tags?|hashtags?|key ?words?|objects?(?: detected)?|detected objects?)[*_]*\s*:",
    rf"(?:\A|[.!?]\s){_MARKS[:-1]}{{0,5}}{_MANY}{_CHOICES}\b[^\n.]{{0,60}}:",
    r"(?:\A|[\s*_#>])(?:option|version|caption|variant|alternative|variation|choice)s? ?(?:#"
    r"|no\.)? ?"
    r"(?:1|one|a|i)\b[\s*_]*[:.)(\-\u2013].{0,600}?(?:option|version|caption|variant|alternative"
    r"|variation"
    r"|choice) ?(?:#|no\.)? ?(?:2|two|b|ii)\b",
    r"(?:hier sind|voici|aquí (?:están|tienes|hay)|ecco|aqui estão|вот)\b[^.:\n]{0,30}"
    r"(?:drei|zwei|einige|trois|deux|quelques|plusieurs|tres|dos|varias|algunas|tre|due|alcune"
    r"|três|duas|várias|три|два|несколько)\b[^.\n]{0,60}:",
    r"(?:以下|下面|这里)(?:是|有|は)?[^。:：]{0,8}[两二三几四五2-5][个种份条つ]",
    # 1. A dog. 2. A cat.
    r"(?:(?:\A|\s)\(?1[.)]|\A\(?a[.)])\s+\S.{0,600}?\s\(?(?:2|b)[.)]\s+\S",
    r"\u2460.{0,600}?\u2461|1\ufe0f?\u20e3.{0,600}?2\ufe0f?\u20e3",
)
"""Searched anywhere in a text: several captions to choose from, or a list."""


_NOTHING_SAID = _any(r"(?:yes|no|ok|okay|sure|done|great|understood|got it)[.!]?\s*\Z")


def is_talk(text: str, sentences: list[str]) -> bool:
    """Whether `text`, of these sentences, has remarks of a chat model that cannot be removed.

    An introduction of one caption does not count: for it there is the flag `boilerplate`.
    """
    if _NOTHING_SAID.match(text) or SEVERAL.search(text):
        return True
    return any(
        REASONING.match(sentence) or OFFER.match(sentence) for sentence in (text, *sentences)
    )
