"""Patterns of refusals in languages other than English.

Matched at the beginning of each sentence, like the English ones. Each phrase has "I" or a missing
image in it, so that a caption about a person who is sorry does not match.
"""

from __future__ import annotations

import re

_OPENING = (
    r"[\s\"'\u201c\u2018\u00ab\u201e\u300c*_#>(\-\u00a1\u00bf]*"
    r"(?:(?:leider|malheureusement|hélas|désolée?|lamentablemente|desafortunadamente"
    r"|por desgracia"
    r"|infelizmente|purtroppo|helaas|niestety|maalesef|к сожалению|на жаль|tyvärr|desvårre"
    r"|bohužel|sajnos|din păcate|дуже шкода|rất tiếc|maaf|很遗憾|遗憾|残念ながら|아쉽게도"
    r"|유감스럽게도)"
    r"[,\uff0c\u3001 ]*(?:(?:mais|aber|pero|mas|ma|maar|ale|ama|но) )?)?"
)
_PHRASES = (
    # German
    r"es tut mir (?:\w+ )?leid|entschuldigung,|tut mir (?:\w+ )?leid|ich bedaure",
    r"(?:als|ich bin) (?:eine? )?(?:ki|künstliche intelligenz|sprachmodell|ki-\w+)\b",
    r"(?:kann|darf) ich (?:dieses?|das|die|den|dazu|diese|ihnen|dir|keine?|nicht)\b",
    r"ich (?:kann|darf|konnte|werde|möchte|bin nicht in der lage"
    r"|habe keinen? zugriff)\b[^.!?]{0,60}"
    r"\b(?:nicht|keine?n?|unmöglich|zugriff)\b",
    r"ich bin (?:leider )?nicht in der lage|(?:es wurde )?kein (?:bild|foto) (?:vorhanden"
    r"|hochgeladen|angehängt|gefunden|beigefügt)",
    # French
    r"je (?:suis|regrette|m~excuse)(?: (?:vraiment|sincèrement))? ?(?:désolé|navré"
    r"|dans l~incapacité|incapable|un modèle|une? ia)?\w*(?:,| mais| de ne| de devoir"
    r"|\b(?=.{0,40}\b(?:pas|peux|image)))",
    r"(?:désolée?|excusez-moi|pardon),? (?:mais )?je\b|je ne (?:peux|puis|suis|vois|dispose"
    r"|parviens|saurais)\b",
    r"en tant qu~(?:ia|intelligence|assistant|modèle)|aucune image n~|il m~est impossible",
    # Spanish
    r"lo siento\b|lo lamento\b|perdón,? (?:pero )?no\b|disculpa?s?,? (?:pero )?no\b|me temo que",
    r"(?:yo )?no (?:puedo|podré|soy capaz|me es posible|tengo (?:acceso|la capacidad)"
    r"|estoy en condiciones)\b",
    r"como (?:una? )?(?:ia|inteligencia artificial|modelo de lenguaje|asistente)\b"
    r"|no se (?:ha )?(?:proporcion|adjunt)\w+",
    r"soy un(?:a)? (?:ia|modelo de lenguaje|asistente)\b|no hay ninguna imagen",
    # Portuguese
    r"(?:sinto muito|lamento|desculpe?|desculpa|peço desculpas?|perdão)\b",
    r"(?:eu )?não (?:posso|consigo|sou capaz|tenho (?:acesso|a capacidade)|me é possível"
    r"|estou apt\w)\b",
    r"como (?:uma? )?(?:ia|inteligência artificial|modelo de linguagem|assistente)\b"
    r"|nenhuma imagem (?:foi|dispon)",
    # Italian
    r"mi dispiace\b|mi spiace\b|mi scuso\b|scusa(?:mi)?,|spiacente\b",
    r"(?:io )?non (?:posso|sono in grado|riesco a|ho (?:accesso|la capacità)|mi è possibile)\b",
    r"(?:come|in quanto|sono) (?:un~?a? ?)?(?:ia|intelligenza artificiale"
    r"|modello linguistico|assistente)\b|nessuna immagine",
    # Dutch, Swedish, Norwegian, Danish, Finnish
    r"het spijt me\b|sorry,? (?:maar )?ik\b|ik (?:kan|mag|ben niet in staat"
    r"|heb geen toegang)\b[^.!?]{0,50}\b(?:niet|geen)\b",
    r"ik ben (?:helaas )?niet in staat|als (?:een )?(?:ai|taalmodel)\b|kan ik (?:deze|dit"
    r"|de|het|u|je)\b",
    r"jag (?:är ledsen|beklagar|kan (?:tyvärr )?inte)|förlåt,|jeg (?:beklager|er lei"
    r"|kan (?:desverre |desværre )?ikke)|beklager,",
    r"som en? (?:ai|språkmodell|sprogmodel)\b|valitettavasti en|olen pahoillani|en (?:voi"
    r"|pysty)\b",
    # Polish, Czech, Slovak, Hungarian, Romanian
    r"przepraszam,|przykro mi\b|nie (?:mogę|jestem w stanie|potrafię)\b|jako (?:model"
    r"|sztuczna|ai)\b",
    r"omlouvám se|je mi líto|nemohu\b|nejsem schopen|ospravedlňujem sa|nemôžem\b",
    r"sajnálom\b|elnézést\b|nem tudom\b|îmi pare rău|nu pot\b|nu sunt în măsură",
    # Russian, Ukrainian, Bulgarian
    r"(?:извини(?:те)?|простите|прошу прощения|мне (?:очень )?жаль|сожалею)\b",
    r"я (?:не (?:могу|в состоянии|имею|вижу)|(?:\u2014 |- )?(?:ии|языковая модель"
    r"|искусственный))",
    r"(?:не могу|невозможно) (?:описать|помочь|выполнить|просмотреть)|как (?:ии|языковая"
    r"|искусственный)",
    r"изображение (?:не |отсутствует)|вибачте\b|перепрошую\b|я не можу\b|съжалявам\b",
    # Turkish, Vietnamese, Indonesian, Greek
    r"(?:üzgünüm|özür dilerim|kusura bakmayın)\b|bir yapay zeka|bu (?:görseli|resmi"
    r"|görüntüyü)[^.!?]{0,40}(?:amıyorum|emiyorum|edemem|veremem)",
    r"(?:tôi )?(?:rất )?(?:xin lỗi|lấy làm tiếc)|tôi (?:không thể|là một (?:mô hình|ai))|xin lỗi",
    r"(?:mohon )?maaf,|saya (?:tidak (?:bisa|dapat|mampu)|minta maaf|mohon maaf)"
    r"|sebagai (?:ai|model bahasa)",
    r"(?:λυπάμαι|συγγνώμη|ζητώ συγγνώμη)|δεν μπορώ\b",
    # Chinese, simplified and traditional
    r"(?:非常|很|真的|我很)?(?:抱歉|对不起|對不起|不好意思)|请原谅|請原諒",
    r"我(?:无法|無法|不能|不能够|没有办法|沒有辦法|看不到|看不见|不会)|(?:无法|無法|不能)(?:描述"
    r"|提供|识别|識別|查看|帮助|幫助|完成|处理|回答)",
    r"作为(?:一个|一名)?(?:ai|人工智能|语言模型|助手)|我是(?:一个|一款)?(?:ai|人工智能|语言模型)"
    r"|请(?:您)?(?:提供|上传)(?:图|照)",
    # Japanese
    r"(?:大変|誠に|まことに)?(?:申し訳|すみません|済みません|ごめんなさい|恐れ入りますが"
    r"|恐縮ですが)",
    r"[^\u3002.!?]{0,40}(?:画像|写真|ご要望|ご依頼|人物)[^\u3002.!?]{0,30}(?:できません"
    r"|できかねます|いたしかねます"
    r"|確認できない|見ることができな)",
    r"(?:私は)?(?:ai|言語モデル|人工知能)(?:として|です|なので)",
    # Korean
    r"(?:정말 )?(?:죄송|미안|송구)(?:합니다|하지만|해요|합니다만|스럽)|저는 (?:ai|인공지능"
    r"|언어 ?모델)",
    r"[^.!?]{0,40}(?:이미지|사진|그림|요청)[^.!?]{0,30}(?:할 수 없|수 없습니다|수 없어요"
    r"|못합니다|어렵습니다)",
    # Arabic, Persian, Hebrew, Hindi, Urdu, Bengali, Thai
    r"(?:عذرً?ا|آسف|أنا آسف|أعتذر|نعتذر|للأسف)|لا (?:أستطيع|يمكنني|يمكن)|(?:بصفتي|ك)\s?نموذج",
    r"(?:متأسفم|متاسفم|متأسفانه|ببخشید)|من نمی|معذرت",
    r"(?:מצטער|סליחה|אני מצטער|אני לא יכול|אינני יכול|לצערי)",
    r"(?:क्षमा|मुझे (?:खेद|अफसोस|माफ)|माफ़? करें|माफ़? कीजि|खेद है)"
    r"|मैं[^.!?\u0964]{0,60}(?:नहीं (?:कर )?सक|असमर्थ)",
    r"(?:দুঃখিত|আমি দুঃখিত|ক্ষমা)|(?:ขออภัย|ขอโทษ|เสียใจ|ฉันไม่สามารถ|ผมไม่สามารถ"
    r"|ไม่สามารถ(?:อธิบาย|ช่วย))",
)
WORLD_REFUSAL = re.compile(
    (_OPENING + f"(?:{'|'.join(_PHRASES)})").replace("~", "['\u2019]"), re.IGNORECASE
)
