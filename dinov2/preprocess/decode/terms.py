"""Words that may leave this room: DICOM's defined terms, view codes, and the names of makers.

In: the text of a header field, which may hold anything a person typed. Out: a term of the lists below, `OTHER` where
the text is none, empty where there is no text. A name that somebody wrote into the wrong field goes no further.
Sources: PS3.3 C.7.3.1.1.1 (Modality), C.8.1.1 and C.8.11.5 (View Position), PS3.16 Annex L (Body Part Examined) and
CID 4010 (view codes).
"""

import re
from collections.abc import Mapping


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OTHER = "OTHER"
NO_MAKER = "other"
MODALITIES = _words(
    """
    ANN AR ASMT AU BDUS BI BMD CD CF CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DR DS DX EC ECG EEG EMG EOG EPS ES
    FA FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF
    OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT
    RWV SC SEG SM SMR SR SRF ST STAIN TEXTUREMAP TG US VA VF XA XAPROTOCOL XC
    """
)
MODALITY_SPELLINGS: Mapping[str, str] = {"DRX": "DX"}
BODY_PARTS = _words(
    """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS BUTTOCK CALCANEUS CALF
    CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON CORNEA CORONARYARTERY
    CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT GALLBLADDER HAND HEAD
    HEADNECK HEART HIP HUMERUS ILEUM ILIUM IAC JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE LSSPINE LUNG MANDIBLE
    MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID
    PATELLA PELVIS PENIS PHARYNX PROSTATE RECTUM RIB RIBS SCALP SCAPULA SCLERA SCROTUM SHOULDER SKULL SPINE SPLEEN
    SSPINE STERNUM STOMACH TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TLSPINE TMJ TOE TONGUE TRACHEA TSPINE ULNA
    RADIUS UMBILICUS URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY WRIST ZYGOMA
    """
)
BODY_PART_SPELLINGS: Mapping[str, str] = {
    "TORAX": "THORAX",
    "TÓRAX": "THORAX",
    "CHST": "CHEST",
    "CXR": "CHEST",
    "CHESTS": "CHEST",
    "LUNGS": "LUNG",
    "PULMON": "LUNG",
    "LUNGE": "LUNG",
    "POUMON": "LUNG",
    "POUMONS": "LUNG",
}
VIEWS = _words(
    """
    AP PA LL RL RLD LLD RLO LLO LAO RAO LPO RPO LATERAL FRONTAL OBLIQUE AXIAL LORDOTIC DECUBITUS
    """
)
VIEW_SPELLINGS: Mapping[str, str] = {
    "LAT": "LATERAL",
    "LATERALL": "LATERAL",
    "LATL": "LATERAL",
    "LLAT": "LL",
    "RLAT": "RL",
    "LLATERAL": "LL",
    "RLATERAL": "RL",
    "LEFTLATERAL": "LL",
    "RIGHTLATERAL": "RL",
    "ANTEROPOSTERIOR": "AP",
    "POSTEROANTERIOR": "PA",
    "ANTEROPOST": "AP",
    "POSTEROANT": "PA",
    "APAXIAL": "AP",
    "FRONT": "FRONTAL",
    "OBL": "OBLIQUE",
    "DECUB": "DECUBITUS",
}
VIEW_REMARKS = _words(
    """
    CHEST THORAX PORTABLE PORT MOBILE SUPINE ERECT UPRIGHT STANDING SITTING SEMIERECT BED BEDSIDE VIEW ROUTINE GRID
    ADULT CHILD PEDIATRIC PAEDIATRIC INFANT
    """
)
# SNOMED CT, SNOMED RT (schemes SRT, SNM3, 99SDM) -> the term; CID 4010 without the parts of other bodies
VIEW_CODES: Mapping[str, str] = {
    **dict.fromkeys(("399348003", "R-10206", "399312000", "R-10208"), "AP"),
    **dict.fromkeys(("272479007", "R-10214", "R-40888", "399059000", "R-10216"), "PA"),
    **dict.fromkeys(("399067008", "R-102CD", "30730003", "G-A145"), "LATERAL"),
    **dict.fromkeys(("399173006", "R-10236"), "LL"),
    **dict.fromkeys(("399198007", "R-10232"), "RL"),
    **dict.fromkeys(("399033003", "R-10202"), "FRONTAL"),
    **dict.fromkeys(("399135007", "R-10220"), "LAO"),
    **dict.fromkeys(("399356000", "R-40985"), "RAO"),
    **dict.fromkeys(("399006002", "R-10212"), "LPO"),
    **dict.fromkeys(("399038007", "R-10210"), "RPO"),
    **dict.fromkeys(("399182000", "R-102C1", "399184004", "R-10238", "399236003", "R-10234"), "OBLIQUE"),
    **dict.fromkeys(("399061009", "R-10241"), "AXIAL"),
}
VIEW_MEANINGS: Mapping[str, str] = {"POSTEROANTERIOR": "PA", "ANTEROPOSTERIOR": "AP", "LATERAL": "LATERAL"}
# A word that a maker's free text begins with, or holds -> the name that the maker goes by
MAKERS: Mapping[str, str] = {
    "agfa": "Agfa",
    "amx": "GE HealthCare",
    "arcoma": "Arcoma",
    "canon": "Canon",
    "carestream": "Carestream",
    "kodak": "Carestream",
    "del medical": "Del Medical",
    "dinov2 phantom": "dinov2 phantom",
    "drgem": "DRGEM",
    "drtech": "DRTECH",
    "eos imaging": "EOS imaging",
    "fuji": "Fujifilm",
    "fujifilm": "Fujifilm",
    "ge": "GE HealthCare",
    "general electric": "GE HealthCare",
    "hitachi": "Hitachi",
    "hologic": "Hologic",
    "iray": "iRay",
    "imaging dynamics": "Imaging Dynamics",
    "italray": "Italray",
    "konica": "Konica Minolta",
    "lodox": "Lodox",
    "lumisys": "Lumisys",
    "mindray": "Mindray",
    "oldelft": "Oldelft",
    "philips": "Philips",
    "rayence": "Rayence",
    "samsung": "Samsung",
    "medison": "Samsung",
    "sedecal": "Sedecal",
    "shimadzu": "Shimadzu",
    "siemens": "Siemens Healthineers",
    "sirona": "Sirona",
    "swissray": "Swissray",
    "thales": "Thales",
    "toshiba": "Canon",
    "trixell": "Trixell",
    "united imaging": "United Imaging",
    "varian": "Varian",
    "vidar": "Vidar",
    "vieworks": "Vieworks",
    "villa": "Villa",
    "wandong": "Wandong",
    "ziehm": "Ziehm",
}
WORD = re.compile(r"[^\W_]+")


def modality(text: str) -> str:
    """A defined term of Modality."""
    word = text.strip().upper()
    word = MODALITY_SPELLINGS.get(word, word)
    return word if word in MODALITIES or not word else OTHER


def body_part(text: str) -> str:
    """The body parts that the text names, in its order, separated by spaces."""
    words = [BODY_PART_SPELLINGS.get(word, word) for word in WORD.findall(text.upper())]
    if not words:
        return ""
    whole = "".join(words)
    found = [whole] if whole in BODY_PARTS else [word for word in words if word in BODY_PARTS]
    return " ".join(dict.fromkeys(found)) or OTHER


def view(text: str) -> str:
    """The view that the text names, where it names one and nothing that is not understood."""
    if not WORD.search(text):
        return ""
    words = [word for word in WORD.findall(text.upper()) if not word.isdigit()]
    whole = "".join(words)
    if whole in VIEW_SPELLINGS or whole in VIEWS:
        return VIEW_SPELLINGS.get(whole, whole)
    named = {VIEW_SPELLINGS.get(word, word) for word in words if word not in VIEW_REMARKS}
    return named.pop() if len(named) == 1 and named <= VIEWS else OTHER


def view_of_code(value: str, meaning: str) -> str:
    """The view of a code of CID 4010; of its meaning where the code is of another scheme."""
    if value.strip().upper() in VIEW_CODES:
        return VIEW_CODES[value.strip().upper()]
    text = "".join(WORD.findall(meaning.upper()))
    return next((term for word, term in VIEW_MEANINGS.items() if word in text), OTHER if value or text else "")


def maker(text: str) -> str:
    """The usual name of a known maker, `other` where it is none of them."""
    words = " ".join(WORD.findall(text.lower()))
    if not words:
        return ""
    return next((name for word, name in MAKERS.items() if f" {word} " in f" {words} "), _maker_by_start(words))


def _maker_by_start(words: str) -> str:
    """GEMS and GEHC, FUJIPHOTO and the like: one word run together with another."""
    starts = (word for word in MAKERS if len(word) > 3 and words.startswith(word))
    return next((MAKERS[word] for word in starts), "GE HealthCare" if re.match(r"ge(ms|hc)\b", words) else NO_MAKER)
