"""What text in a language looks like in an old code page: which letters are how frequent, for ``code_page.py``.

The letters are those beyond ASCII, in lower case, from the most frequent; for other scripts, that is the alphabet. The
orders are rough: they tell frequent letters from rare ones. ``tests/datasets/test_code_page.py`` measures the whole.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Language:
    """A language, and the code pages in which people have it, from the most usual."""

    pages: tuple[str, ...]
    letters: str
    words: frozenset[str] = frozenset()
    """Short words that captions are full of."""
    absent: str = ""
    """ASCII letters that its words do not have."""
    rarity: float = 0.0
    """How much rarer such files are than those of the most usual languages, as a natural logarithm."""
    latin: bool = field(default=True)


def _latin(pages: str, letters: str, words: str, absent: str = "", rarity: float = 0.0) -> Language:
    return Language(tuple(pages.split()), letters, frozenset(words.split()), absent, rarity)


def _other(pages: str, letters: str, rarity: float = 0.0) -> Language:
    return Language(tuple(pages.split()), letters, rarity=rarity, latin=False)


_WEST = "cp1252 mac_roman cp850"
_EAST = "cp1250 iso8859_2 cp852"

LANGUAGES: tuple[Language, ...] = (
    _latin(_WEST, "é", "a an and at by from in is of on s t the to two with"),
    _latin(_WEST, "üäöß", "auf das dem den der die ein eine einem einer im in ist mit und von vor zwei"),
    _latin(_WEST, "éèàêçâîùôûœëïñ", "avec dans de des deux du en est et la le les par sur un une"),
    _latin(_WEST, "óíáéñúü¿¡", "con de del dos el en es la las los por un una y", "kw"),
    _latin(_WEST, "ãçáéóíêúõâàô", "com da de do dois duas e em na no o os por um uma", "kwy", 0.5),
    _latin(_WEST, "èàùòéì", "con del della di due e il in la le nel per su sul un una", "jkwxy", 0.5),
    _latin(_WEST, "ëéïóèêüö", "de een en het in is met op twee van voor", "", 0.5),
    _latin(_WEST, "äåöé", "av den det en ett i med och på som till två", "qw", 0.5),
    _latin(_WEST, "øåæéöäü", "af av den det en et i med og på som til to", "qwxz", 0.5),
    _latin(_WEST, "äöå", "ja kaksi on", "qwxz", 1.0),
    _latin("cp1252", "áíðéóöúýþæ", "á af ein er frá hún í með og sem tvö um við", "cqwz", 2.0),
    _latin("cp1252", "àéèíóòçúïü·", "amb dos el els en i la les un una", "kw", 1.5),
    _latin(_EAST, "łąęóżśćńź", "dwa i jest na nad o po pod przez się w we z ze", "qvx", 0.5),
    _latin(_EAST, "íáéěřýžčšůúťňďó", "a dva dvě je na po pod s se si u v ve z", "qwx", 0.5),
    _latin(_EAST, "áíéýčžúľšťôňäóďĺŕ", "a dva dve je na po pod s sa v vo z", "qwx", 1.0),
    _latin(_EAST, "áéőöóüíűú", "a az egy egyik és két fut ház van", "qwx", 0.5),
    _latin(_EAST, "ăîţşâ", "cu de din doi două este în la o pe si și un", "kqwy", 1.0),
    _latin(_EAST, "čšžćđ", "dva dvije i iz je kod na pod s sa se u za", "qwxy", 1.0),
    _latin("cp1254 iso8859_9 cp857", "ışüğçöİâîû", "bir bu çok da de ile iki ve üzerinde yeni", "qwx", 0.5),
    _latin("cp1257 iso8859_13", "ėųšįžąūęč", "ant ir į iš per prie su du", "qwx", 1.5),
    _latin("cp1257 iso8859_13", "āēīšņļūķģžč", "ar divi no pa pie un uz", "qwxy", 1.5),
    _latin("cp1257 iso8859_13 cp1252", "äõüöšž", "ja kaks ning on üks", "cqwxyz", 1.5),
    _latin(
        "cp1258", "àáâđêôơưảạăíóùúéèìòãõũẻỏủ\u0300\u0301\u0303\u0309\u0323", "con trên trong và hai một", "fjwz", 1.5
    ),
    _other("cp1251 koi8_r cp866 iso8859_5 mac_cyrillic", "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"),
    _other("cp1251 koi8_u cp1125", "оанивтіеркслудмпзяьйгбчхцжїєшюфщґ", 0.5),
    _other("cp1251", "аоиетнрсвлкдпмзгъябуйчжшцщхюфь", 1.0),
    _other("cp1251", "аиоејнртсвкудлпмгзбљњћшжчцхђџф", 1.0),
    _other("cp1251", "аіненртклсуоядвмзпўьыгбчхцжёшйюф", 1.5),
    _other("cp1253 iso8859_7 cp737", "αοιετσνηυρπκμλςόίάέδήγωύχθφώβξζψϊϋΐΰ", 0.5),
    _other("cp1255 iso8859_8", "יוהלאתרבםמשנדקעפחכטןגסצזףךץ", 0.5),
    _other("cp1256 iso8859_6", "اليمنرتبةعدسفهكحقجشصوطخأضذىئزثءإغظؤآ", 0.5),
    _other("cp1256", "ايرنهدموتسبلشکكگزفخقجعپآحچطصضثظغذژئ\u200c", 1.0),
    _other(
        "cp874 iso8859_11",
        "านรก่อเง้มยล\u0e31วดท\u0e34\u0e35\u0e37สต\u0e38ะปบคไจพ\u0e36\u0e39็ชหข์แโซถใธผฟณญ\u0e33ศษๆภฆฐฎฏฬฮฉ",
        0.5,
    ),
)
"""Languages whose letters are single bytes in their code pages."""


@dataclass(frozen=True, slots=True)
class EastAsian:
    """A script whose characters have two bytes in ``page``.

    ``frequent`` characters make up a ``share`` of a caption. The usual ones are those of the first level of a character
    set: its rows from ``first`` to ``last``.
    """

    page: str
    frequent: str
    share: float
    charset: str
    first: int
    last: int
    kana: str = ""
    rarity: float = 0.5


_HANZI = (
    "的一是了我不在有人这上大来和个中地为子小两红色女男孩白黑花水边车站着狗猫房里头手"
    "跑山天穿坐树草走面前后玩年看海桌老蓝绿黄街道路公园开下从出到家用长时"
)
_HANZI_TRADITIONAL = (
    "的一是了我不在有人這上大來和個中地為子小兩紅色女男孩白黑花水邊車站著狗貓房裡頭手"
    "跑山天穿坐樹草走面前後玩年看海隻桌老藍綠黃街道路公園開下從出到家用長時"
)
_KANJI = "人一大日中年子犬猫女男赤白青黒緑木花水山車海空上下前後家道立走食見手小二三古本町雪川草色着座持遊公園乗"
_HANGUL = (
    "이다는에가을의하고지로사한도리기서나시있은아를자인대그어해과들일스정라보수여두개람남위앞옆집길빨간파란얀검놀마"
)
_KANA = "のにはをがていたるでとしもれなっかりあんすきまさくこらだけよせおえみずつどじそめちぶべばびやゆ"

EAST_ASIAN: tuple[EastAsian, ...] = (
    EastAsian("cp932", _KANJI, 0.25, "euc_jp", 0xB0, 0xCF, _KANA),
    EastAsian("euc_jp", _KANJI, 0.25, "euc_jp", 0xB0, 0xCF, _KANA, rarity=1.5),
    EastAsian("gb18030", _HANZI, 0.5, "gb2312", 0xB0, 0xD7, rarity=0.0),
    EastAsian("cp950", _HANZI_TRADITIONAL, 0.5, "big5", 0xA4, 0xC6),
    EastAsian("cp949", _HANGUL, 0.5, "euc_kr", 0xB0, 0xC8),
)
"""Scripts of two bytes a character, each in its code page."""
