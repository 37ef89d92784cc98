"""Tiny copies of labelled public datasets: names of files and columns are the real ones, every value is made up."""

import pickle
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from dinov2.layouts.columns import CHEXPERT_FINDINGS
from tests.layouts.copies import NIH_COLUMNS, PADCHEST_COLUMNS, write


def film(path: Path, *, seed: int = 0, size: tuple[int, int] = (12, 10)) -> None:
    """A picture of `size` (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)).save(path)


def mask(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def chexpert(root: Path, *, val_table: str = "valid.csv") -> Path:
    """Three training films (one lateral) and one of each other split; the cells of film 1: see the test."""
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT_FINDINGS)}"
    given = {"Cardiomegaly": "1.0", "Edema": "-1.0", "Consolidation": "0.0"}
    cells = ",".join(given.get(finding, "") for finding in CHEXPERT_FINDINGS)
    release = "CheXpert-v1.0-small"
    films = {
        "train.csv": [
            f"{release}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP",
            f"{release}/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,",
            f"{release}/train/patient00002/study1/view1_frontal.jpg,Male,50,Frontal,PA",
        ],
        val_table: [f"{release}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,PA"],
    }
    for table, rows in films.items():
        write(root / table, [header, *(f"{row},{cells}" for row in rows)])
    test = "test/patient64741/study1/view1_frontal.jpg"
    write(root / "test.csv", [f"Path,{','.join(CHEXPERT_FINDINGS)}", f"{test},{cells}"])
    for row in [*films["train.csv"], *films[val_table], test]:
        film(root / row.split(",")[0].replace(f"{release}/", ""))
    return root


def nih(root: Path, *, form: str = "original") -> Path:
    """Sixteen films of eight training patients, two of a test patient.  `form`: the original, or a list per split."""
    names = [f"{patient:08}_{number:03}" for patient in range(1, 9) for number in range(2)]
    tests = ["00000099_000", "00000099_001"]
    said = ["Effusion|Mass", "No Finding", "Hernia", "Edema"]
    rows = [
        f"{name}.png,{said[i % 4]},0,{int(name[:8])},58,M,PA,8,8,0.1,0.1," for i, name in enumerate([*names, *tests])
    ]
    table = "labels.csv" if form == "lists" else "Data_Entry_2017_v2020.csv"
    write(root / table, [NIH_COLUMNS.format("Patient Sex"), *rows])
    write(root / "test_list.txt", [f"{name}.png" for name in tests])
    if form == "lists":
        write(root / "train_list.txt", [f"{name}.png" for name in names[:12]])
        write(root / "val_list.txt", [f"{name}.png" for name in names[12:]])
    else:
        write(root / "train_val_list.txt", [f"{name}.png" for name in names])
    for number, name in enumerate([*names, *tests]):
        folder = "images_001/images" if form == "original" else "test" if name in tests else "train"
        film(root / folder / f"{name}.png", seed=number)
    return root


def montgomery(root: Path, *, splits: bool) -> Path:
    for number in range(12):
        name = f"MCUCXR_{number:04}_{number % 2}.png"
        folder = f"{('train', 'val', 'test')[number % 3]}" if splits else "CXR_png"
        film(root / folder / name, seed=number)
        left, right = (np.zeros((12, 10)) for _ in range(2))
        left[2:6, 1:4], right[2:6, 6:9] = 255, 255
        mask(root / "ManualMask" / "leftMask" / name, left)
        mask(root / "ManualMask" / "rightMask" / name, right)
    return root


def shenzhen(root: Path) -> Path:
    for number in range(6):
        split = ("train", "val", "test")[number % 3]
        name = f"CHNCXR_{number:04}_{number % 2}"
        colour = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
        (root / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(colour).save(root / split / f"{name}.png")
        if number != 3:  # a film without a mask
            inside = np.zeros((12, 10))
            inside[3:9, 2:8] = 255
            mask(root / "masks" / f"{name}_mask.png", inside)
    return root


def vindr(root: Path) -> Path:
    names = "Aortic enlargement,Cardiomegaly,Lung Opacity,Pleural effusion,Pleural thickening,Pulmonary fibrosis"
    header = f"{names},Tuberculosis,No finding"
    write(
        root / "annotations" / "image_labels_train.csv",
        [
            f"image_id,rad_id,{header}",
            *(f"aa11,R{i},{int(i < 2)},0,1,0,0,0,0,0" for i in range(3)),
            "bb22,R1,0,0,0,0,0,0,0,1",
        ],
    )
    write(root / "annotations" / "image_labels_test.csv", [f"image_id,{header}", "cc33,0,1,0,0,0,0,1,0"])
    for path in ("train/aa11.png", "train/bb22.png", "test/cc33.png"):
        film(root / "converted" / path)
    return root


def rsna(root: Path) -> Path:
    boxes = ["patientId,x,y,width,height,Target"]
    kinds = ["patientId,class"]
    for number in range(20):
        target = number % 2
        boxes += [f"id{number:02},{'1,2,3,4' if target else ',,,'},{target}"] * (1 + target)
        kinds.append(f"id{number:02},{'Lung Opacity' if target else 'Normal'}")
        film(root / "stage_2_train_images" / f"id{number:02}.png")
    write(root / "stage_2_train_labels.csv", boxes)
    write(root / "stage_2_detailed_class_info.csv", kinds)
    return root


def siim(root: Path) -> Path:
    """1.2.0 has two runs of its own in two rows; the others none."""
    rows = ["ImageId, EncodedPixels", "1.2.0,2048 3 1021 2", "1.2.0,0 1", *(f"1.2.{n}, -1" for n in range(1, 20))]
    write(root / "train-rle.csv", rows)
    for number in range(20):
        film(root / "png" / f"1.2.{number}.png", size=(1024, 1024) if number == 0 else (64, 64))
    return root


def candid(root: Path) -> Path:
    rows = [f"p{n // 2},1.9.{n},{'512 4' if n % 2 else '-1'},text" for n in range(20)]
    write(root / "Pneumothorax_reports.csv", ["anonID,SOPInstanceUID,EncodedPixels,Report", *rows])
    for number in range(20):
        film(root / "png" / f"1.9.{number}.png", size=(64, 64))
    return root


def openi(root: Path, *, form: str) -> Path:
    said = ["Cardiomegaly;Pulmonary Edema", "normal", "Opacity"]
    for number in range(1, 16):
        kaggle, shipped = f"{number}_IM-{number:04}-1001.dcm.png", f"CXR{number}_1_IM-{number:04}-1001.png"
        film(root / "images" / (kaggle if form == "tables" else shipped))
    if form == "tables":
        write(
            root / "indiana_reports.csv",
            ["uid,MeSH,Problems,findings", *(f"{n},x,{said[n % 3]},y" for n in range(1, 16))],
        )
        rows = [f"{n},{n}_IM-{n:04}-1001.dcm.png,{'Lateral' if n == 5 else 'Frontal'}" for n in range(1, 16)]
        write(root / "indiana_projections.csv", ["uid,filename,projection", *rows])
        return root
    for number in range(1, 16):
        headings = "".join(f"<major>{one}/borderline</major>" for one in said[number % 3].split(";"))
        picture = f'<parentImage id="CXR{number}_1_IM-{number:04}-1001"></parentImage>'
        write(root / "ecgen-radiology" / f"{number}.xml", [f"<eCitation><MeSH>{headings}</MeSH>{picture}</eCitation>"])
    return root


def padchest(root: Path) -> Path:
    rows = []
    for number in range(20):
        said = "\"['cardiomegaly', ' pleural effusion']\"" if number % 2 else "['normal']"
        view = "L" if number == 7 else "PA"
        rows.append(
            f"{number},{number}_a.png,0,20140915,20140915,P{number},1930.0,F,POSTEROANTERIOR,{view},Manual,No,CR,X,1,,Physician,{said}"
        )
        film(root / "0" / f"{number}_a.png")
    write(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", [PADCHEST_COLUMNS, *rows])
    return root


def covid_qu_ex(root: Path) -> Path:
    for split in ("Train", "Val", "Test"):
        for kind in ("COVID-19", "Non-COVID", "Normal"):
            folder = root / "Lung Segmentation Data" / "Lung Segmentation Data" / split / kind
            film(folder / "images" / f"{split}_{kind}.png")
            lungs = np.zeros((12, 10))
            lungs[4:8, 2:8] = 255
            mask(folder / "lung masks" / f"{split}_{kind}.png", lungs)
            film(root / "Infection Segmentation Data" / split / kind / "images" / f"{split}_{kind}.png")
    return root


def radiography(root: Path) -> Path:
    for kind in ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia"):
        for number in range(5):
            film(root / kind / "images" / f"{kind}-{number}.png")
            mask(root / kind / "masks" / f"{kind}-{number}.png", np.full((6, 5), 255))
    return root


def kermany(root: Path) -> Path:
    for place, split in enumerate(("train", "val", "test")):
        film(root / "chest_xray" / split / "NORMAL" / f"IM-{place:04}-0001.jpeg")
        film(root / "chest_xray" / split / "PNEUMONIA" / f"person{place}_virus_{place}.jpeg")
    return root


def pickles(root: Path) -> Path:
    for place, split in enumerate(("train", "val", "test")):
        listed = {}
        for kind in ("Edema", "Atelectasis") if split != "val" else ("Edema",):
            name = f"NIH-CXR/images_008/images/{place:04}{len(kind):04}_005.png"
            film(root / name)
            listed[kind] = [name]
        (root / "splits").mkdir(exist_ok=True)
        with (root / "splits" / f"class2images_{split}.p").open("wb") as stream:
            pickle.dump(listed, stream)
    return root


def sars(root: Path) -> Path:
    for split, scans in (("train", (78, 80)), ("val", (79, 81)), ("test", (12, 90))):
        for scan in scans:
            for number in (10, 2, 1):
                film(root / split / str(scan) / f"{number}.png", seed=number)
    return root


def nifti(path: Path, values: np.ndarray, *, flipped: bool = False) -> None:
    """A volume [S, H, W], up and left as radiologists see it; `flipped`: stored from the head down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(values)
    image.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAI") if flipped else image, str(path))
