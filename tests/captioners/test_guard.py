"""The guard: bad generations are noticed, tried again once, and never stored."""

from __future__ import annotations

import hashlib
import io
import random

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curator.captioners import Caption, CaptionFailure, CaptionRequest
from curator.captioners.echo import EchoCaptioner
from curator.captioners.guard import Guarded, judge, tidy
from curator.captioners.options import RETRY_CANDIDATE, Sampling
from curator.captioners.prompts import PRESETS
from curator.core.errors import EngineError
from curator.core.reasons import REASONS

SHORT = PRESETS["short"]


def picture(number: int, prompt: str = SHORT.text) -> CaptionRequest:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), (number, 10, 10)).save(buffer, format="PNG")
    image = buffer.getvalue()
    return CaptionRequest(hashlib.sha256(image).hexdigest(), image, prompt)


PICTURES = [picture(number) for number in range(40)]


def reasons(outcomes: list[Caption | CaptionFailure]) -> set[str | None]:
    return {o.reason if isinstance(o, CaptionFailure) else None for o in outcomes}


# -- what a bad answer becomes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refusal", "vlm.refusal"),
        ("loop", "vlm.repetition"),
        ("language", "vlm.language"),
        ("empty", "vlm.empty"),
        ("echo", "vlm.echo"),
        ("boilerplate", "vlm.boilerplate"),
        ("special", "vlm.special_token"),
        ("n_minus_1", "vlm.mismatch"),  # when asking singly does not help
        ("n_plus_1", "vlm.mismatch"),
    ],
)
def test_a_bad_answer_twice_is_a_failure(fault, reason):
    outcomes = Guarded(EchoCaptioner(fault=fault), prompt=SHORT).caption(PICTURES)
    assert len(outcomes) == len(PICTURES)
    assert reasons(outcomes) == {reason}
    assert reason in REASONS


@pytest.mark.parametrize(
    "fault", ["refusal", "loop", "language", "empty", "echo", "boilerplate", "special"]
)
def test_a_bad_answer_once_is_tried_again_with_other_words_and_seed(fault):
    captioner = EchoCaptioner(
        fault=fault, fault_share=0.5, fault_once=True, sampling=Sampling(seed=7)
    )
    outcomes = Guarded(captioner, prompt=SHORT).caption(PICTURES)
    assert reasons(outcomes) == {None}
    seeds = [outcome.seed for outcome in outcomes]
    assert set(seeds) == {7, 7 + RETRY_CANDIDATE}
    # A second try is what the captioner says to the alternative wording.
    i = seeds.index(7 + RETRY_CANDIDATE)
    plain = EchoCaptioner(sampling=Sampling(seed=7 + RETRY_CANDIDATE))
    assert [outcomes[i]] == plain.caption(
        [CaptionRequest(PICTURES[i].image_sha256, PICTURES[i].image, SHORT.alternative)]
    )


def test_the_failure_tells_of_both_tries():
    (outcome,) = Guarded(EchoCaptioner(fault="refusal"), prompt=SHORT).caption(PICTURES[:1])
    assert outcome.detail == (
        "I'm sorry, but I can't describe this image. "
        "(first try: vlm.refusal I'm sorry, but I can't describe this image.)"
    )


def test_good_answers_stay_beside_bad_ones_and_in_order():
    good = EchoCaptioner().caption(PICTURES)
    outcomes = Guarded(EchoCaptioner(fault="refusal", fault_share=0.3), prompt=SHORT).caption(
        PICTURES
    )
    assert reasons(outcomes) == {None, "vlm.refusal"}
    for outcome, right in zip(outcomes, good, strict=True):
        assert isinstance(outcome, CaptionFailure) or outcome == right


def test_image_failures_pass_through_and_are_not_tried_again():
    broken = CaptionRequest("0" * 64, b"not an image", SHORT.text)
    outcomes = Guarded(EchoCaptioner(), prompt=SHORT).caption([PICTURES[0], broken])
    assert [type(outcome) for outcome in outcomes] == [Caption, CaptionFailure]
    assert outcomes[1].reason == "image.not_an_image"


class ShortOnce:
    """Loses an answer of its first batch, as vllm#1655 did; right from then on."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def caption(self, requests):
        self.sizes.append(len(requests))
        outcomes = EchoCaptioner().caption(requests)
        return outcomes[1:] if len(self.sizes) == 1 else outcomes


def test_a_batch_of_the_wrong_length_is_thrown_away_and_asked_singly():
    # Nobody can tell which answer is missing, so all of them are under suspicion.
    captioner = ShortOnce()
    outcomes = Guarded(captioner, prompt=SHORT).caption(PICTURES[:3])
    assert outcomes == EchoCaptioner().caption(PICTURES[:3])
    assert captioner.sizes == [3, 1, 1, 1]


# -- garbage: is it the image or the engine? -----------------------------------------------------


def test_garbage_for_the_test_picture_ends_the_run():
    with pytest.raises(EngineError, match="gives garbage") as caught:
        Guarded(EchoCaptioner(fault="garbage"), prompt=SHORT).caption(PICTURES)
    assert caught.value.code == 30


class Overflowing:
    """Garbage until it runs in fp32, like a vision tower that overflows in fp16."""

    def __init__(self) -> None:
        self.reduced = True

    def to_fp32(self) -> bool:
        self.reduced = False
        return True

    def caption(self, requests):
        fault = "garbage" if self.reduced else None
        return EchoCaptioner(fault=fault).caption(requests)


def test_garbage_in_half_precision_is_redone_in_fp32(caplog):
    outcomes = Guarded(Overflowing(), prompt=SHORT).caption(PICTURES)
    assert outcomes == EchoCaptioner().caption(PICTURES)
    assert "runs in fp32" in caplog.text


class GarbageFor:
    """NaN logits for one image, whatever the prompt and seed."""

    def __init__(self, image_sha256: str) -> None:
        self.image_sha256 = image_sha256

    def caption(self, requests):
        return [
            CaptionFailure("vlm.garbage", "NaN") if request.image_sha256 == self.image_sha256 else o
            for request, o in zip(requests, EchoCaptioner().caption(requests), strict=True)
        ]


def test_garbage_for_one_image_fails_alone():
    outcomes = Guarded(GarbageFor(PICTURES[3].image_sha256), prompt=SHORT).caption(PICTURES)
    good = EchoCaptioner().caption(PICTURES)
    assert outcomes[:3] + outcomes[4:] == good[:3] + good[4:]
    assert outcomes[3] == CaptionFailure("vlm.garbage", "NaN (first try: vlm.garbage NaN)")


# -- tidying -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("  A dog\nruns.\n\n", "A dog runs."),
        ('"A dog runs."', "A dog runs."),
        ("\u201cA dog runs.\u201d", "A dog runs."),
        # quotes that belong to the caption
        ('A sign says "stop"', 'A sign says "stop"'),
        ('"Stop" and "go" signs: "stop"', '"Stop" and "go" signs: "stop"'),
        ("'Tis a dog's life", "'Tis a dog's life"),
        ("A dog runs.<|im_end|>", "A dog runs."),
        ("<s> A dog runs. </s></s>", "A dog runs."),
        ("<|im_start|>assistant A dog runs.<|im_end|>", "A dog runs."),
        ("ASSISTANT: A dog runs.", "A dog runs."),
        ("An assistant: a person who helps.", "An assistant: a person who helps."),
        ("A dog [running] on grass [blurred]", "A dog [running] on grass [blurred]"),
        # bidi override and zero-width space: nobody sees them, tokenizers do
        ("A \u202edog\u200b runs.", "A dog runs."),
        ("", ""),
    ],
)
def test_tidy(text, tidied):
    assert tidy(text) == tidied
    assert tidy(tidied) == tidied


# -- one caption for all -------------------------------------------------------------------------


# -- 200 bad outputs ------------------------------------------------------------------------

REFUSALS = [
    "I'm sorry, but I can't {do} this {image}.",
    "I cannot {do} the {image} you have sent.",
    "I apologize, but I am not able to {do} this {image}.",
    "Sorry, I can't help with that {image}.",
    "As an AI language model, I cannot {do} any {image}.",
    "Unfortunately, I am unable to {do} this {image}.",
    "I'm unable to {do} people in the {image}.",
    "I\u2019m sorry, I can\u2019t assist with {do}ing this {image}.",
    "I do not have the ability to {do} this {image}.",
    "I must decline to {do} this {image}.",
]
FOREIGN = [
    "Ein brauner Hund läuft mit einem Ball im Maul am Strand entlang.",
    "Un homme en veste rouge descend une montagne enneigée à ski.",
    "Un perro marrón corre por la playa con una pelota en la boca.",
    "Una donna con un cappello blu cammina per la strada vicino al mercato.",
    "Um menino está brincando com uma bola de futebol no parque da cidade.",
    "Een man zit op een bank en leest de krant in het park.",
    "一只棕色的狗在沙滩上奔跑，嘴里叼着一个球。",  # noqa: RUF001 - another script is the point
    "茶色の犬がボールをくわえて砂浜を走っている。",
    "갈색 개가 공을 물고 해변을 달리고 있다.",
    "Коричневая собака бежит по пляжу с мячом во рту.",  # noqa: RUF001 - another script is the point
    "كلب بني يركض على الشاطئ وفي فمه كرة.",
    "एक भूरा कुत्ता मुंह में गेंद लेकर समुद्र तट पर दौड़ रहा है।",
    "Brązowy pies biegnie po plaży z piłką w pysku obok swojego pana.",
    "Kahverengi bir köpek ağzında bir topla kumsalda koşuyor.",  # noqa: RUF001 - another script is the point
    "Một con chó nâu đang chạy trên bãi biển với quả bóng trong miệng.",
    "Dos niños juegan al fútbol en el parque.",
    "Una mujer con sombrero azul camina por la calle.",
    "El hombre está sentado en un banco leyendo el periódico.",
    "Un grupo de personas espera el tren en la estación.",
    "Un chat noir dort sur un canapé rouge.",
    "Deux enfants jouent au ballon dans le parc.",
    "Une femme marche dans la rue avec un parapluie.",
    "Des gens attendent le train sur le quai.",
    "Ein Mann sitzt auf einer Bank und liest Zeitung.",
    "Zwei Kinder spielen im Park Fußball.",
    "Eine Frau geht mit einem Regenschirm durch die Straße.",
    "Ein brauner Hund läuft am Strand.",
    "Eine Gruppe von Menschen wartet auf den Zug.",
    "Un cane marrone corre sulla spiaggia con una palla in bocca.",
    "Due bambini giocano a calcio nel parco.",
    "Un uomo è seduto su una panchina e legge il giornale.",
    "Una ragazza con un vestito rosso salta nella piscina.",
    "Um cachorro marrom corre na praia com uma bola na boca.",
    "Duas crianças brincam no parque.",
    "Um homem está sentado em um banco lendo jornal.",
    "Een man zit op een bank en leest de krant.",
    "Twee kinderen spelen voetbal in het park.",
    "Een bruine hond rent over het strand.",
    "En brun hund springer på stranden med en boll i munnen.",
    "Två barn leker i parken.",
    "Dwoje dzieci gra w piłkę w parku.",
    "Mężczyzna siedzi na ławce i czyta gazetę.",
    "Bir adam bankta oturmuş gazete okuyor.",
    "Dua anak bermain bola di taman.",
    "Seorang pria duduk di bangku sambil membaca koran.",
    "Hai đứa trẻ đang chơi bóng trong công viên.",
]
WORDS = [
    "a",
    "dog",
    "man",
    "woman",
    "red",
    "ball",
    "runs",
    "park",
    "with",
    "beach",
    "two",
    "people",
]


def bad_outputs(seed: int) -> list[tuple[str, str]]:
    """(kind, text) of the mix, one by one (`repeated` is tested in test_stuck)."""
    rng = random.Random(seed)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    def loop() -> str:
        unit = words(1, 9)
        joint = rng.choice([" ", ", ", ". ", " and "])
        return f"A {words(3, 8)}{joint}" + joint.join([unit] * rng.randint(10, 25))

    def special() -> str:
        token = rng.choice(["<|im_start|>user", "<|image_pad|>", "</s><s>", "[INST]", "<image>"])
        return f"A {words(4, 8)} {token} {words(3, 6)}."

    def refusal() -> str:
        verb = rng.choice(["describe", "identify", "caption"])
        noun = rng.choice(["image", "picture", "photo"])
        return rng.choice(REFUSALS).format(do=verb, image=noun)

    prompts = [prompt.text for prompt in PRESETS.values()]
    made = [("refusal", refusal()) for _ in range(40)]
    made += [("loop", loop()) for _ in range(40)]
    made += [("garbage", rng.choice("!!!?#") * rng.randint(12, 200)) for _ in range(20)]
    made += [("language", rng.choice(FOREIGN)) for _ in range(30)]
    made += [("echo", f"{rng.choice(['', 'User: '])}{rng.choice(prompts)}") for _ in range(20)]
    made += [
        ("empty", rng.choice(["", " ", "\n", "\u200b", '""', "<|im_end|>"])) for _ in range(10)
    ]
    made += [("special", special()) for _ in range(20)]
    return made


def test_r13_bad_outputs_are_flagged():
    flagged = total = 0
    missed = []
    for seed in range(5):
        for kind, text in bad_outputs(seed):
            prompt = next((p.text for p in PRESETS.values() if p.text in text), SHORT.text)
            found = judge(tidy(text), prompt=prompt) is not None
            flagged += found
            total += 1
            if not found:
                missed.append((kind, text))
    assert total == 900
    assert flagged >= 0.99 * total, missed


@pytest.mark.realdata
@pytest.mark.long
def test_r13_human_captions_are_not_flagged(shared):
    table = pq.read_table(shared / "data" / "photos" / "captions.parquet").to_pylist()
    texts = [text for row in table for text in row["human_captions"]]
    flagged = [text for text in texts if judge(tidy(text), prompt=SHORT.text)]
    assert len(texts) == 10_000
    assert len(flagged) <= 0.001 * len(texts), flagged


def test_alt_text_in_the_prompt_may_come_back():
    # A grounded caption that says what the alt text says is not an echo.
    prompt = PRESETS["grounded"].text.replace("{alt_text}", "A brown dog runs on the beach")
    assert judge("A brown dog runs on the beach.", prompt=prompt) is None
    assert judge(prompt, prompt=prompt).reason == "vlm.echo"
