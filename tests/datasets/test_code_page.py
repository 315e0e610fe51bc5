"""A text in an old code page is read as it was written; where several pages fit, the answer is called a guess.

The captions are of this file's own making. Each language stands in the code pages in which people have it.
"""

import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clip_retrieval.datasets.code_page import code_page_of

TEXTS: dict[str, tuple[str, list[str]]] = {
    "English": ("cp1252", ["the baker’s shop – closed", "a “fast” train…", "two cafés on the square"]),
    "German": ("cp1252 mac_roman cp850", ["Bäume am Fluss", "ein Mädchen mit grünem Hut", "fünf Äpfel auf dem Tisch"]),
    "French": (
        "cp1252 mac_roman cp850",
        ["une forêt en été", "le bébé mange une pêche", "la fenêtre fermée d'une école"],
    ),
    "Spanish": (
        "cp1252 mac_roman",
        ["un árbol en el jardín", "la niña come una manzana", "el avión está sobre la montaña"],
    ),
    "Portuguese": ("cp1252", ["um avião no céu", "a menina come uma maçã", "o coração da estação"]),
    "Italian": ("cp1252", ["più alberi nel giardino", "il papà legge", "la novità della città"]),
    "Dutch": ("cp1252", ["een reünie van twee vriendinnen", "een hond op het ijs in België", "de zeeën zijn blauw"]),
    "Swedish": ("cp1252", ["ett träd vid sjön", "en pojke äter ett äpple på en bänk", "två båtar på vattnet"]),
    "Danish": ("cp1252", ["et træ ved søen", "en dreng spiser et æble", "små både på vandet"]),
    "Finnish": ("cp1252", ["tyttö syö omenaa pöydän ääressä", "järvi ja metsä", "poika pyöräilee tiellä"]),
    "Icelandic": ("cp1252", ["tré við vatnið", "strákur borðar epli á bekk", "fjögur börn og þrír bátar á sjónum"]),
    "Catalan": ("cp1252", ["una nena menja una poma al jardí", "el cotxe és ràpid", "l’estació de tren i el cafè"]),
    "Polish": (
        "cp1250 iso8859_2 cp852",
        ["dziewczynka je jabłko", "trzy łódki na jeziorze", "mężczyzna jedzie na żółtym rowerze"],
    ),
    "Czech": (
        "cp1250 iso8859_2",
        ["dívka jí jablko u stromu", "tři lodě na jezeře", "muž řídí žluté auto na ulici"],
    ),
    "Slovak": ("cp1250", ["dievča je jablko pri strome", "tri člny na jazere", "muž šoféruje žlté auto"]),
    "Hungarian": ("cp1250 iso8859_2", ["egy kislány almát eszik", "három hajó a tavon", "egy férfi sárga kerékpárral"]),
    "Romanian": ("cp1250", ["o fetiţă mănâncă un măr", "trei bărci pe lac", "un bărbat şi o maşină galbenă"]),
    "Croatian": ("cp1250", ["djevojčica jede jabuku", "tri čamca na jezeru", "muškarac vozi žuti automobil"]),
    "Turkish": ("cp1254", ["küçük kız elma yiyor", "gölde üç tekne var", "İstanbul'da yağmurlu bir akşam"]),
    "Lithuanian": ("cp1257", ["mergaitė valgo obuolį", "trys valtys ant ežero", "vyras važiuoja geltonu dviračiu"]),
    "Latvian": ("cp1257", ["meitene ēd ābolu", "trīs laivas uz ezera", "vīrietis ar dzeltenu velosipēdu"]),
    "Estonian": ("cp1257", ["tüdruk sööb õuna", "kolm paati järve peal", "mees sõidab kollase jalgrattaga"]),
    "Vietnamese": ("cp1258", ["cô gái đang ăn táo", "ba chiếc thuyền trên hồ", "người đàn ông đi xe đạp màu vàng"]),
    "Russian": (
        "cp1251 koi8_r cp866 iso8859_5",
        ["девочка ест яблоко", "три лодки на озере", "Мужчина едет на жёлтом велосипеде"],
    ),
    "Ukrainian": ("cp1251 koi8_u", ["дівчинка їсть яблуко", "три човни на озері", "Чоловік їде на жовтому велосипеді"]),
    "Bulgarian": ("cp1251", ["момиче яде ябълка", "три лодки в езерото", "мъж кара жълто колело"]),
    "Serbian": ("cp1251", ["девојчица једе јабуку", "три чамца на језеру", "човек вози жути бицикл"]),
    "Greek": ("cp1253", ["ένα κορίτσι τρώει μήλο", "τρεις βάρκες στη λίμνη", "Άνδρας με κίτρινο ποδήλατο"]),
    "Hebrew": ("cp1255", ["ילדה אוכלת תפוח", "שלוש סירות באגם", "איש רוכב על אופניים צהובים"]),
    "Arabic": ("cp1256", ["فتاة تأكل تفاحة", "ثلاثة قوارب في البحيرة", "رجل يركب دراجة صفراء"]),
    "Persian": ("cp1256", ["دختر سيب مي‌خورد", "سه قايق در درياچه", "مردي با دوچرخه زرد"]),
    "Thai": ("cp874", ["เด็กหญิงกินแอปเปิล", "เรือสามลำในทะเลสาบ", "ผู้ชายขี่จักรยานสีเหลือง"]),
    "Japanese": ("cp932 euc_jp", ["女の子がりんごを食べる", "湖に三隻の舟", "黄色い自転車に乗る男性"]),
    "Chinese": ("gb18030", ["女孩吃苹果", "湖上有三只船", "男人骑着黄色的自行车"]),
    "Chinese, traditional": ("cp950", ["女孩吃蘋果", "湖上有三艘船", "男人騎著黃色的自行車"]),
    "Korean": ("cp949", ["여자아이가 사과를 먹는다", "호수에 배 세 척", "노란 자전거를 타는 남자"]),
}
CASES = [(language, page) for language, (pages, _) in TEXTS.items() for page in pages.split()]


def encoded(text: str, page: str) -> bytes:
    """The text in a code page. That of Vietnamese has tones apart from their letters."""
    if page != "cp1258":
        return text.encode(page)
    tones = "\u0300\u0301\u0303\u0309\u0323"
    parts = []
    for letter in text:
        marks = unicodedata.normalize("NFD", letter)
        plain = unicodedata.normalize("NFC", "".join(mark for mark in marks if mark not in tones))
        parts.append(plain + "".join(mark for mark in marks if mark in tones))
    return "".join(parts).encode(page)


def is_read(text: str, data: bytes, page: str) -> bool:
    return unicodedata.normalize("NFC", data.decode(page, errors="replace")) == unicodedata.normalize("NFC", text)


def alone() -> Iterator[tuple[str, bytes]]:
    """Every caption that is not ASCII, alone in a table, in each code page of its language."""
    for language, page in CASES:
        for caption in TEXTS[language][1]:
            if not caption.isascii():
                yield caption, encoded(caption, page)


@pytest.mark.parametrize(("language", "page"), CASES)
def test_three_captions_are_read_as_they_were_written(language: str, page: str) -> None:
    text = "".join(f"{number}.jpg,{caption}\n" for number, caption in enumerate(TEXTS[language][1]))
    data = encoded(text, page)
    assert is_read(text, data, code_page_of(data).name)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60).filter(lambda data: not data.isascii()))
@example(b"\x98\xb5\x10")
def test_any_bytes_have_a_code_page_and_none_of_unicode(data: bytes) -> None:
    name = code_page_of(data).name
    assert not name.startswith("utf")
    assert data.decode(name, errors="surrogateescape")


def test_of_single_captions_most_are_read_and_a_wrong_one_is_a_guess() -> None:
    found = [(text, data, code_page_of(data)) for text, data in alone()]
    wrong = [(text, page) for text, data, page in found if not is_read(text, data, page.name)]
    assert [text for text, page in wrong if page.sure] == []
    assert len(wrong) <= 0.04 * len(found)
