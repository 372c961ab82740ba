"""Languages: answers in another one however short, two in one text, refusals in any."""

from __future__ import annotations

import polars as pl
import pytest

from curator.scorers.language import is_wrong_language
from curator.scorers.text import check_text
from tests.captioners.test_guard import FOREIGN

# (text, the language that was asked for)
WRONG = [
    ("一只狗", "en"),
    ("Un chien brun", "en"),
    ("Ein brauner Hund", "en"),
    ("El perro corre", "en"),
    ("Una donna seduta", "en"),
    ("Een bruine hond", "en"),
    ("Perro marrón corriendo", "en"),
    ("A brown dog number 0 在绿色的草地上奔跑 with a red ball in its mouth.", "en"),
    ("A brown dog 在草地上 runs", "en"),
    ("A dog next to 红色汽车 on a road", "en"),
    ("A brown собака runs on the grass", "en"),
    ("A brown dog бежит по траве with a ball", "en"),
    ("A brown dog runs across the grass. Un chien brun court dans l'herbe verte.", "en"),
    ("A brown dog qui court dans l'herbe verte avec une balle", "en"),
    ("A brown dog runs on grass. Ein brauner Hund läuft über die Wiese.", "en"),
    ("A brown dog läuft auf einem Feld mit einem Ball", "en"),
    ("The dog runs. 狗在跑。", "en"),
    ("A dog. 개가 잔디 위를 달리고 있다.", "en"),
    ("A dog runs كلب يركض على العشب", "en"),
    ("A man mit einem Hund auf der Straße", "en"),
    ("A man camina por la calle con su perro mientras llueve", "en"),
    ("一只棕色的狗在绿色的草地上奔跑，编号0。", "ja"),
    ("一只狗", "ja"),
    ("Коричневая собака номер 0 бежит по зелёной траве.", "ja"),
    ("A dog runs", "ja"),
    ("개가 달린다", "ja"),
    ("茶色の犬が走っている。", "zh"),
    ("Коричневая собака", "zh"),
    ("A brown dog", "zh"),
    ("Собака біжить по зеленій траві з м'ячем у роті", "ru"),
    ("一只棕色的狗 runs across the green grass 嘴里叼着球", "zh"),
    ("A dog runs over the wide green meadow", "de"),
    ("Un chien brun court dans l'herbe", "de"),
    ("A brown dog", "de"),
    ("Un perro corre por la playa", "fr"),
    ("Ein brauner Hund. A brown dog runs on the grass.", "de"),
    ("کلب يركض", "en"),
    ("Un cane marrone corre sull'erba.", "en"),
    ("一只狗 is running on the grass.", "en"),
    ("A cat sits on the 沙发.", "en"),
    ("A woman stands by the wall, sosteniendo un ramo de flores en la mano.", "en"),
    ("A woman stands by the wall, tenant un bouquet de fleurs à la main.", "en"),
    ("A cat sits on the ソファ and sleeps.", "en"),
    ("The image shows a 고양이 sitting on a sofa.", "en"),
    ("A cute кот sits on a sofa.", "en"),
]

# Names, signs and loan words are no second language.
RIGHT = [
    ("Dvořák statue in Prague", "en"),
    ("A hall in Mexico City, Universidad Nacional Autónoma de México, with students", "en"),
    ("The 福 symbol on a red door", "en"),
    ("A man at the 吉野家 restaurant", "en"),
    ("A scroll with the 和 character", "en"),
    ("A statue of Пушкин in a park", "en"),
    ("Les Misérables cast on stage", "en"),
    ("Señor Frog's restaurant sign in Cancún", "en"),
    ("Reykjavík's Hallgrímskirkja church under a grey sky", "en"),
    ("A shop sign reading 営業中 above a door", "en"),
    ("a shop sign reading 本日休業", "en"),
    ('a sign that says "本日は休業させていただきます"', "en"),
    ("Mount Fuji (富士山) at dawn", "en"),
    ("A view of 東京タワー at night", "en"),
    ("A portrait of Лев Толстой in his study", "en"),
    ("The Great Wall (万里长城) in winter", "en"),
    ("A statue of Αριστοτέλης", "en"),
    ("Rio de Janeiro", "en"),
    ("Nike Air Max 90", "en"),
    ("El Capitan at sunset", "en"),
    ("Los Angeles skyline", "en"),
    ("La Paz", "en"),
    ("Las Vegas at night", "en"),
    ("Le Mans race cars", "en"),
    ("Der Spiegel magazine", "en"),
    ("A man in front of the Musée du Louvre", "en"),
    ("A plate of pain au chocolat next to a café con leche", "en"),
    ("Basilica of Our Lady del Pilar", "en"),
    ("jalapeño peppers", "en"),
    ("crème brûlée", "en"),
    ("A crème brûlée in a café", "en"),
    ("東京駅", "ja"),
    ("茶色の犬が走っている。", "ja"),
    ("トヨタの車", "ja"),
    ("一只棕色的狗在草地上奔跑。", "zh"),
    ("一家名为「すし」的餐厅", "zh"),
    ("一个穿着 NIKE T恤 的男人", "zh"),
    ("Коричневая собака бежит по зелёной траве.", "ru"),
    ("Собака породы Golden Retriever бежит", "ru"),
    ("Ein brauner Hund läuft.", "de"),
    ("Un chien brun", "fr"),
    ("Un chien", "fr"),
    ("El perro corre por la playa", "es"),
    ("갈색 개가 달린다", "ko"),
    ("A K-pop poster of 방탄소년단", "en"),
    ("A bowl of 김치 on a table", "en"),
    ("A woman named Zoë Müller", "en"),
    ("Die Hard movie poster", "en"),
    ("Das Boot", "en"),
    ("Le Corbusier building", "en"),
    ("De Niro in a film", "en"),
    ("A π symbol and Ω", "en"),
    ("Un cane corre", "it"),
    ("Um cachorro corre na grama", "pt"),
]

REFUSALS = [
    "Es tut mir leid, aber ich kann dieses Bild 0 nicht beschreiben.",
    "Leider kann ich dieses Bild nicht beschreiben.",
    "Ich kann keine Personen identifizieren.",
    "Als KI-Sprachmodell kann ich keine Bilder sehen.",
    "Je suis désolé, mais je ne peux pas décrire cette image.",
    "Désolé, je ne peux pas vous aider.",
    "Je ne peux pas identifier cette personne.",
    "En tant qu'IA, je ne peux pas voir les images.",
    "Lo siento, pero no puedo describir esta imagen.",
    "No puedo ayudar con eso.",
    "Como modelo de lenguaje, no puedo ver imágenes.",
    "Desculpe, mas não posso descrever esta imagem.",
    "Sinto muito, não consigo ver a imagem.",
    "Mi dispiace, ma non posso descrivere questa immagine.",
    "Non sono in grado di vedere l'immagine.",
    "Het spijt me, maar ik kan deze afbeelding niet beschrijven.",
    "Ik kan deze afbeelding niet beschrijven.",
    "Przepraszam, ale nie mogę opisać tego obrazu.",
    "Извините, но я не могу описать это изображение.",
    "К сожалению, я не могу помочь.",
    "Я не могу описать это изображение.",
    "Üzgünüm, bu resmi tanımlayamıyorum.",
    "Xin lỗi, tôi không thể mô tả hình ảnh này.",
    "Maaf, saya tidak dapat mendeskripsikan gambar ini.",
    "对不起，我无法描述这张图片。",
    "很抱歉，我不能识别图片中的人。",
    "抱歉，我无法提供帮助。",
    "我无法查看图片。",
    "作为一个AI，我不能看图片。",
    "申し訳ありませんが、この画像0を説明することはできません。",
    "すみません、画像を見ることができません。",
    "この画像を説明することはできません。",
    "죄송하지만 이 이미지를 설명할 수 없습니다.",
    "죄송합니다. 도와드릴 수 없습니다.",
    "이 이미지를 설명할 수 없습니다.",
    "عذراً، لا أستطيع وصف هذه الصورة.",
    "آسف، لا يمكنني مساعدتك.",
    "क्षमा करें, मैं इस छवि का वर्णन नहीं कर सकता।",
    "मुझे खेद है, मैं मदद नहीं कर सकता।",
    "מצטער, אני לא יכול לתאר את התמונה.",
    "ขออภัย ฉันไม่สามารถอธิบายภาพนี้ได้",
    "Jag kan tyvärr inte beskriva bilden.",
    "Olen pahoillani, en voi kuvailla kuvaa.",
    "متأسفم، نمی\u200cتوانم این تصویر را توصیف کنم.",
]

LANGUAGES = [
    "de", "fr", "es", "it", "pt", "nl", "zh", "ja", "ko", "ru", "ar", "hi", "pl", "tr", "vi",
    *["es"] * 4, *["fr"] * 4, *["de"] * 5, *["it"] * 4, *["pt"] * 3, *["nl"] * 3, *["sv"] * 2,
    *["pl"] * 2, "tr", "id", "id", "vi",
]  # fmt: skip
"""Of tests.captioners.test_guard.FOREIGN."""


@pytest.mark.parametrize(("text", "language"), WRONG)
def test_another_language_or_a_second_one_is_noticed(text: str, language: str) -> None:
    assert is_wrong_language(text, language)
    assert "language" in check_text(text, language=language).flags


@pytest.mark.parametrize(("text", "language"), RIGHT)
def test_names_and_signs_of_other_languages_may_stand_in_a_text(text: str, language: str) -> None:
    assert not is_wrong_language(text, language)


@pytest.mark.parametrize(("text", "language"), list(zip(FOREIGN, LANGUAGES, strict=False)))
def test_a_caption_in_the_language_asked_for_is_right(text: str, language: str) -> None:
    assert not is_wrong_language(text, language)
    assert is_wrong_language(text, "en")


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals_in_other_languages(text: str) -> None:
    assert "refusal" in check_text(text).flags


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("de", "Ein trauriger Junge sitzt auf einer Bank."),
        ("fr", "Une femme est désolée devant une voiture."),
        ("es", "Un hombre que no puede caminar."),
        ("ja", "茶色の犬が走っている。"),
        ("zh", "一只狗在草地上奔跑。"),
        ("ru", "Собака бежит по траве."),
        ("it", "Un uomo con una mela."),
        ("pt", "Um homem com uma bola."),
        ("ko", "갈색 개가 달린다."),
        ("fr", "Je suis Charlie est écrit sur une pancarte."),
        ("nl", "Een kan met water op een tafel."),
        ("sv", "En man kan inte se hunden."),
        ("de", "Kann man hier sitzen?"),
        ("tr", "Bir köpek koşuyor."),
    ],
)
def test_captions_that_only_sound_like_refusals(language: str, text: str) -> None:
    assert check_text(text, language=language).healthy, check_text(text, language=language).flags


@pytest.mark.realdata
def test_english_captions_are_wrong_for_every_other_language(shared) -> None:
    table = pl.read_parquet(shared / "data" / "photos" / "captions.parquet")
    human = [captions[0] for captions in table["human_captions"]][:200]
    for language in ("de", "fr", "es", "it", "pt", "nl", "sv", "pl", "ja", "zh", "ru", "ar"):
        missed = [text for text in human if not is_wrong_language(text, language)]
        assert len(missed) <= 0.05 * len(human), (language, missed)
