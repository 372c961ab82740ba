"""The health of texts: what must be flagged, what must not, and the shares on real captions."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from curator.core.errors import UsageError
from curator.scorers.language import is_wrong_language
from curator.scorers.text import FLAGS, REJECTING, TextScorer, check_text
from tests.kit.growth import assert_linear

PROMPT = "Describe this image in one detailed sentence, naming every object you see."

REFUSALS = [
    "I'm sorry, but I can't assist with that request.",
    "I\u2019m sorry, but I can\u2019t help with identifying people in images.",
    "I am sorry, I cannot describe this image.",
    "Sorry, I can't help with that.",
    "Sorry, but I cannot provide a description of this image.",
    "I cannot assist with this.",
    "I can't provide that information.",
    "I can not see the image you are referring to.",
    "I cannot identify the person in the photo.",
    "I'm unable to view images.",
    "I am unable to describe the content of this picture.",
    "I'm not able to help with that.",
    "I am not able to process images directly.",
    "I won't describe explicit content.",
    "I will not generate a caption for this.",
    "I apologize, but I am not able to see any image.",
    "I apologise for the confusion, but there is no image here.",
    "I must decline to describe this.",
    "I don't have the ability to see images.",
    "I do not have access to the image.",
    "I don't see any image attached.",
    "As an AI language model, I cannot see pictures.",
    "As an AI, I do not have eyes.",
    "As a large language model I can only process text.",
    "As a text-based assistant, I have no access to images.",
    "I'm just an AI and cannot judge this.",
    "I am a language model trained by a company.",
    "Unfortunately, I cannot describe this photo.",
    "Unfortunately I am unable to assist.",
    "It is not possible for me to see the image.",
    "It's impossible for me to view this.",
    "No image was provided.",
    "There is no image attached to your message.",
    "Please provide an image so that I can describe it.",
    "Please upload the picture again.",
    "The photo looks fine. However, I can't identify the people in it.",
    "\"I'm sorry, but I can't do that.\"",
    "**I'm sorry**, I cannot comply with it.",
    "I cannot fulfill this request.",
    "We cannot provide a caption for this image.",
]

# Written down before the patterns were looked at again: 22 of these 33 were missed at first.
MORE_REFUSALS = [
    "I'm really sorry, but I can't help with that.",
    "I'm not going to describe this image.",
    "I don't feel comfortable describing this.",
    "My apologies, but I can't view images.",
    "I'm afraid I can't do that.",
    "Unfortunately, the image could not be loaded.",
    "I'm sorry for the confusion, but there seems to be no image.",
    "Without the image, I can't describe it.",
    "I need to see the image to describe it.",
    "It seems there is no image attached.",
    "It looks like you haven't uploaded an image.",
    "I can't identify who this is based on appearance.",
    "I won't identify the people.",
    "I do not possess the capability to view images.",
    "This content may violate our policies.",
    "I'm designed to be helpful and harmless.",
    "I currently do not support image inputs.",
    "I have no way to see this picture.",
    "I'm here to help, but I can't describe that.",
    "I cannot see images",
    "The image cannot be displayed.",
    "Could you please provide the image?",
    "I'd be happy to help, but I don't see an image.",
    "Image not available",
    "The requested image could not be found",
    "I'm Claude, an AI assistant",
    "I can't tell who the person is.",
    "I refuse to describe this",
    "No caption available",
    "I'm not sure what this is",
    "Sorry! I can't help.",
    "I am just a text-based model",
    "Identifying people is against my guidelines.",
]

FOREIGN = [
    "Ein Hund läuft über die Wiese und spielt mit einem Ball",
    "Zwei Männer spielen Fußball auf einem grünen Feld",
    "Une femme en robe rouge se tient devant un bus",
    "Un petit garçon joue avec son chien dans le jardin",
    "Una mujer con un vestido rojo camina por la calle",
    "Dos perros corren por la playa detrás de una pelota",
    "Um cachorro correndo na grama verde com uma bola",
    "Due persone camminano sulla spiaggia al tramonto",
    "Il gatto dorme sul divano accanto alla finestra",
    "Een hond rent over het gras met een bal in zijn bek",
    "Pies biega po trawie za czerwoną piłką",
    "Köpek çimenlerin üzerinde koşuyor ve oynuyor",
    "Anjing berlari di atas rumput dengan bola",
    "En hund springer på gräset med en boll",
    "Con chó đang chạy trên cỏ với quả bóng",
    "Koira juoksee nurmikolla pallon perässä",
    "Pes běží po trávě za míčem",
    "Câinele aleargă pe iarbă după o minge",
    "A kutya a fűben fut egy labda után",
    "一只狗在草地上奔跑",
    "公园里有两个孩子在玩。",
    "犬が芝生の上を走っている",
    "개가 잔디 위를 달리고 있다",
    "Собака бежит по траве",
    "\u039f σκύλος τρέχει στο γρασίδι",
    "كلب يركض على العشب",
    "כלב רץ על הדשא",
    "สุนัขวิ่งบนหญ้า",
    "एक कुत्ता घास पर दौड़ रहा है",
    "The image shows 一只狗在草地上奔跑旁边有一只白色的猫",
]

WEB = [
    "Red dress free shipping",
    "Click here to enlarge",
    "Buy now and save 30% off",
    "Women shoes $29.99",
    "Nike Air Max \u20ac 89",
    "Call us at 555-123-4567",
    "Contact us for wholesale prices",
    "beautiful girl stock photo",
    "sunset royalty-free image",
    "dress, red dress, party dress, summer dress, women dress",
    "wallpaper #sunset #beach #travel #summer #love #photo #nature #sea #sky #happy",
    "http://example.com/a.jpg",
    "www.example.com",
    "Visit example.co.uk",
    "mail me at someone@example.org",
    "IMG_1234.JPG",
    "DSC00012",
    "Screenshot 2021-03-04 at 10.20.30",
    "image-3-1024x768",
    "550e8400-e29b-41d4-a716-446655440000",
    "product_main_0042_large",
    "20190411_153022",
    "<p>A dog</p>",
    "A dog &amp; a cat",
    "![a dog](photo.png)",
]

FINE = [
    "A dog runs on the beach .",
    "I can see a dog and two cats in the yard.",
    "I can't believe how green this field is",  # not a refusal: promptfoo#9793
    "A man holds a sign that says I'm sorry I can't stay",
    'A woman carries a sign reading "No image provided, call 555-123-4567"',
    'A shop window says "SALE 50% off, www.shoes.com"',
    "Sorry-looking dog in the rain",
    "A sorry sight: the broken bicycle",
    "As an airplane lands, children wave",
    "A baby says ha ha ha ha",
    "Two men, a dog, a cat, and a bird sit on a red sofa in a room",
    "Man in a caf\u00e9 near the \u00cele de la Cit\u00e9",
    "A white dog running on sand .",  # lingua is 99 % sure that this is Swedish
    "Nike Air Max 90",
    "Rio de Janeiro",
    "A man in a black shirt is standing on a bench with a man in a black shirt.",
    "a closeup picture of a girl",
    "I <3 my dog and he loves me",
    "Boeing 747-400 at gate 12",
    "A file cabinet next to a page of paper",
    "It appears no one is in the room",
    "The painting is not finished and the sign cannot be read",
    "No description of this statue fits its size",
    "Without the picture frame the wall looks empty",
]


def loops(rng: random.Random) -> list[str]:
    things = ["dog", "cat", "man in a red hat", "tree", "car on the road", "boat"]
    texts = []
    for _ in range(20):
        phrase = f"a {rng.choice(things)} and a {rng.choice(things)}, "
        texts.append("The photo is of " + phrase * rng.randint(5, 30))
    texts += [f"A {(rng.choice(things) + ' ') * rng.randint(8, 40)}" for _ in range(10)]
    texts += [
        "There is a tree. There is a bird in the tree. " * rng.randint(4, 9) for _ in range(10)
    ]
    return texts


def bad_texts() -> list[tuple[str, str]]:
    """(the flag it must get, the text); 200 and more, the same ones every time."""
    rng = random.Random(7)
    bad = [("refusal", text) for text in REFUSALS + MORE_REFUSALS]
    bad += [("repetition", text) for text in loops(rng)]
    bad += [("repetition", "A dog " * (i % 2) + "!" * (10 + 10 * i)) for i in range(20)]
    bad += [("language", text) for text in FOREIGN]
    bad += [
        ("echo", f"{lead}{PROMPT}{tail}")
        for lead in ("", "User: ", "\n", "Q. ", "\u201c")
        for tail in ("", " A dog.", "\nAssistant:", " " + PROMPT)
    ]
    bad += [("empty", " " * i + "\n" * (i % 3)) for i in range(10)]
    tokens = [
        "<|im_end|>",
        "<image>",
        "</s>",
        "[INST]",
        "<|endoftext|>",
        "<end_of_utterance>",
        "<loc_12>",
        "<pad>",
        "<|eot_id|>",
        "<start_of_turn>",
    ]
    bad += [
        ("special_token", text)
        for token in tokens
        for text in (f"A dog runs{token}", f"{token} a dog {token}")
    ]
    return bad


def test_seeded_bad_texts_are_flagged() -> None:
    bad = bad_texts()
    assert len(bad) >= 200
    missed = [
        (flag, text) for flag, text in bad if flag not in check_text(text, prompt=PROMPT).flags
    ]
    assert len(missed) <= 0.01 * len(bad), missed


LOOPS = [
    "A dog on grass. A dog on grass. A dog on grass.",
    "A brown dog runs across the grass with a ball in its mouth while two children wa"
    "tch it from a bench and a man reads a newspaper. the dog the dog the dog the dog"
    " the dog",
    "A good caption about a dog on a beach with waves. The dog is left. The dog is le"
    "ft. The dog is left.",
    "The dog is on the left. The dog is on the right. The dog is on the left. The dog"
    " is on the right.",
    "A dog hahahahahahahahahahahahahaha",
    "A dog. ! ! ! ! ! ! ! ! ! ! ! !",
    "狗在跑。狗在跑。狗在跑。狗在跑。",
    "A dog runs on green grass ......................",
    "A cat and a dog, and a cat and a dog, and a cat and a dog, and",
    "a a a a a a a",
    "on the table, on the table, on the table, on the table",
    "一只狗在草地上奔跑一只狗在草地上奔跑一只狗在草地上奔跑",
]


@pytest.mark.parametrize("text", LOOPS)
def test_a_loop_is_noticed_also_behind_good_text(text: str) -> None:
    assert "repetition" in check_text(text).flags


@pytest.mark.parametrize(
    "text",
    [
        "Row after row after row of chairs",
        "up and up and up they go",
        "A man and a man and a woman",
        "the big, big, big dog",
        "A dog runs. A dog runs.",
        "Knock knock knock on the door",
    ],
)
def test_a_few_repeated_words_are_no_loop(text: str) -> None:
    assert "repetition" not in check_text(text).flags


@pytest.mark.parametrize("text", WEB)
def test_web_texts_are_rejected(text: str) -> None:
    flags = set(check_text(text).flags)
    assert flags & {"spam", "url", "file_name", "html"}, flags


@pytest.mark.parametrize("text", FINE)
def test_what_people_write_is_healthy(text: str) -> None:
    assert check_text(text, prompt=PROMPT).healthy, check_text(text, prompt=PROMPT).flags


def test_flags_are_the_documented_ones() -> None:
    texts = (
        [text for _, text in bad_texts()]
        + WEB
        + FINE
        + ["dog", "12345 678", "This image shows a dog", "donâ€™t stop", "Let me know if it fits"]
    )
    seen = {flag for text in texts for flag in check_text(text, prompt=PROMPT).flags}
    assert seen == set(FLAGS)
    assert set(FLAGS) - {"too_short", "boilerplate"} == REJECTING


@pytest.mark.parametrize(
    ("text", "is_boilerplate"),
    [
        ("This image shows a dog.", True),
        ("The image features a dog.", True),
        ("In this photo, a dog runs.", True),
        ("The photograph beautifully captures a dog.", True),
        ("This is a picture of a dog", True),
        ("Sure! A dog runs.", True),
        ("Here is a short caption for the image: a dog", True),
        ("Caption: a dog", True),
        # the usual form of a CLIP prompt, and half of all alt texts
        ("A photo of a dog", False),
        ("The image of a saint on a wall", False),
        ("A dog in this image", False),
    ],
)
def test_boilerplate_is_an_opener(text: str, is_boilerplate: bool) -> None:
    report = check_text(text)
    assert ("boilerplate" in report.flags) is is_boilerplate
    assert report.healthy


def test_measures_by_hand() -> None:
    measures = check_text("The dog and the dog.").measures
    # words: the dog and the dog; pairs: (the dog) (dog and) (and the) (the dog): 3 of 4 distinct
    assert measures == {"num_chars": 20, "num_words": 5, "distinct_2": 0.75, "repeated_share": 0}
    # a b c d a b c d: runs of four: abcd bcda cdab dabc abcd: 4 of 5 distinct
    assert check_text("a b c d a b c d").measures["repeated_share"] == pytest.approx(0.2)
    # one Chinese character is one word; "man's" is one word
    assert check_text("\u72d7\u5728\u8dd1 man's").measures["num_words"] == 4
    assert check_text("").measures == {
        "num_chars": 0,
        "num_words": 0,
        "distinct_2": 1,
        "repeated_share": 0,
    }


def test_echo_needs_the_prompt() -> None:
    assert "echo" not in check_text(PROMPT).flags
    # the alt text in a prompt may come back: that is what grounding is for
    grounded = "Describe the image for a blind person. Alt text: a brown dog runs on the beach."
    assert check_text("A brown dog runs on the beach.", prompt=grounded).healthy
    # BLIP's prompt is the caption's beginning
    assert check_text("a photo of a dog", prompt="a photo of").healthy
    # a short instruction counts when it comes back as a sentence
    assert "echo" in check_text("Describe the image. A dog.", prompt="Describe the image.").flags


@pytest.mark.parametrize(
    ("text", "expected", "wrong"),
    [
        ("\u72d7", "en", False),  # one letter is no evidence
        ("\u72d7\u5728", "en", True),  # two of another script are
        ("un chien", "en", False),  # short: Latin letters alone never count before four words
        ("", "en", False),
        ("Ein Hund l\u00e4uft \u00fcber die Wiese", "de", False),
        ("A dog runs over the wide green meadow", "de", True),
        ("\u4e00\u53ea\u72d7", "zh", False),
        ("a dog runs", "zh", True),
    ],
)
def test_language(text: str, expected: str, wrong: bool) -> None:
    assert is_wrong_language(text, expected) is wrong


def test_unknown_language_fails_at_once() -> None:
    with pytest.raises(UsageError, match="unknown language 'english'"):
        TextScorer(language="english")


def test_scores_are_health() -> None:
    good, bad, same = TextScorer().score(
        [(b"", "A dog runs on grass."), (b"", ""), (b"x", "A dog runs on grass.")]
    )
    assert (good.score, good.num_tokens, good.flags) == (1.0, 5, ())
    assert (bad.score, bad.flags, bad.failure) == (0.0, ("empty",), None)
    assert same == good
    assert (
        TextScorer(language="de").score([(b"", "A dog runs over the green meadow")])[0].score == 0.0
    )


@pytest.mark.parametrize(
    "hostile", ["1", "(1", "a.", "- ", "<a ", '"', "+1 ", "I ", "a@", "img 1-", "ha ", "&amp", "x,"]
)
@pytest.mark.long
def test_hostile_text_is_linear(hostile: str) -> None:
    def work(size: int) -> None:
        check_text(hostile * (size // len(hostile)) + "\u00fc!", prompt=hostile * 100)

    assert_linear(work, 65536)


def test_no_torch() -> None:
    code = "import curator.scorers.text, sys; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.realdata
@pytest.mark.long
def test_real_captions(shared: Path) -> None:
    # Promised: at most 0.5 % of 2,000 human captions
    table = pl.read_parquet(shared / "data" / "photos" / "captions.parquet")
    human = [captions[0] for captions in table["human_captions"]]
    assert len(human) == 2000
    rejected = [text for text in human if not check_text(text, prompt=PROMPT).healthy]
    assert len(rejected) <= 10, rejected
    written = table["blip2"].to_list() + table["blip2_lora"].to_list()
    rejected = [text for text in written if not check_text(text, prompt=PROMPT).healthy]
    assert len(rejected) <= 20, rejected
