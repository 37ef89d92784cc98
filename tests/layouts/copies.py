"""Tiny copies of public datasets: the column names are the real ones, every value is made up."""

import gzip
from collections.abc import Sequence
from pathlib import Path

from dinov2.layouts.columns import CHEXPERT_FINDINGS

PADCHEST_COLUMNS = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,ReportID,Report,MethodLabel,Labels"
)
NIH_COLUMNS = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{},View Position,OriginalImage[Width,Height],"
    "OriginalImagePixelSpacing[x,y],"
)
LABELS = "1.0,,-1.0,0.0," + "," * (len(CHEXPERT_FINDINGS) - 5)  # of No Finding, (none), Cardiomegaly, Lung Opacity


def write(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def picture(root: Path, relative: str) -> None:
    (root / relative).parent.mkdir(parents=True, exist_ok=True)
    (root / relative).write_bytes(b"picture")


def mimic(root: Path, *, jpg: bool, gz: bool = True) -> Path:
    """Two patients, three films; the last one is not on disk."""
    end = ".csv.gz" if gz else ".csv"
    films = [("10000032", "50414267", "02aa-1"), ("10000032", "50414267", "174f-2"), ("11000033", "50000007", "0007-3")]
    dicom = [f"files/p{p[:2]}/p{p}/s{s}/{d}.dcm" for p, s, d in films]
    write(
        root / f"cxr-record-list{end}",
        [
            "subject_id,study_id,dicom_id,path",
            *(f"{p},{s},{d},{at}" for (p, s, d), at in zip(films, dicom, strict=True)),
        ],
    )
    write(
        root / f"mimic-cxr-2.0.0-metadata{end}",
        [
            "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime",
            *(
                f'{d},{p},{s},"CHEST (PA, LAT)",{v},3056,2544,21800506,213014.5'
                for (p, s, d), v in reversed(list(zip(films, ("PA", "LATERAL", ""), strict=True)))
            ),
        ],
    )
    write(
        root / f"mimic-cxr-2.0.0-split{end}",
        [
            "dicom_id,study_id,subject_id,split",
            *(f"{d},{s},{p},{'validate' if p[1] == '1' else 'train'}" for p, s, d in films),
        ],
    )
    for labeller in ("chexpert", "negbio"):
        write(
            root / f"mimic-cxr-2.0.0-{labeller}{end}",
            [f"subject_id,study_id,{','.join(CHEXPERT_FINDINGS)}", f"10000032,50414267,{LABELS}"],
        )
    for path in dicom[:2]:
        picture(root, path.replace(".dcm", ".jpg") if jpg else path)
        picture(root, path.replace(".dcm", ".txt"))
    return root


def chexpert(root: Path, *, release: str = "CheXpert-v1.0-small") -> Path:
    header = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(CHEXPERT_FINDINGS)}"
    rows = {
        "train": [
            f"{release}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,{LABELS}",
            f"{release}/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,{LABELS}",
            f"{release}/train/patient00002/study2/view1_frontal.jpg,Unknown,0,Frontal,LL,{LABELS}",
        ],
        "valid": [f"{release}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,PA,{LABELS}"],
    }
    for split, lines in rows.items():
        write(root / release / f"{split}.csv", [header, *lines])
        for line in lines:
            picture(root, line.split(",")[0])
    return root


def nih(root: Path, *, release: str = "v2020") -> Path:
    name, sex_column, age = {
        "v2020": ("Data_Entry_2017_v2020.csv", "Patient Sex", "58"),
        "2017": ("Data_Entry_2017.csv", "Patient Gender", "058Y"),
    }[release]
    write(
        root / name,
        [
            NIH_COLUMNS.format(sex_column),
            f"00000001_000.png,Cardiomegaly|Pleural_Thickening,0,1,{age},M,PA,2682,2749,0.143,0.143,",
            "00000001_001.png,No Finding,1,1,414,F,AP,2682,2749,0.143,0.143,",
            "00000013_000.png,Effusion,0,13,60,M,AP,2682,2749,0.143,0.143,",
        ],
    )
    write(root / "train_val_list.txt", ["00000001_000.png", "00000001_001.png"])
    write(root / "test_list.txt", ["00000013_000.png"])
    picture(root, "images_001/images/00000001_000.png")
    picture(root, "images_001/images/00000001_001.png")
    picture(root, "images_002/images/00000013_000.png")
    return root


def padchest(root: Path) -> Path:
    write(
        root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
        [
            PADCHEST_COLUMNS,
            "0,111_a.png,0,20140915,20140915,839860488,1930.0,F,POSTEROANTERIOR,PA,Manual,No,CR,X,4765777,"
            "\"line one\nline two\",Physician,\"['pulmonary fibrosis', ' nodule', '']\"",
            "1,222_b.png,0,20140915,20140915,839860488,1930.0,F,LATERAL,L,Manual,No,CR,X,4765778,,RNN_model,['normal']",
            "2,333_c.png,54,20150101,20150101,7,,O,ANTEROPOSTERIOR,AP_horizontal,Manual,No,CR,X,1,,RNN_model,",
        ],
    )
    for path in ("0/111_a.png", "0/222_b.png", "54/333_c.png"):
        picture(root, path)
    return root


def brax(root: Path) -> Path:
    header = (
        f"DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,{','.join(CHEXPERT_FINDINGS)},"
        "ViewPosition,Rows,Columns,Manufacturer"
    )
    below = "id_a/Study_1.2/Series_3.4/image-1-2"
    write(
        root / "master_spreadsheet_update.csv",
        [
            header,
            f"Anonymized_DICOMs/{below}.dcm,images/{below}.png,id_a,F,85 or more,ac_1,20100101,{LABELS},L,2048,2048,X",
        ],
    )
    picture(root, f"Anonymized_DICOMs/{below}.dcm")
    picture(root, f"images/{below}.png")
    return root


def vindr(root: Path, *, tables: str = "annotations", reader: str = "rad_id") -> Path:
    write(
        root / tables / "image_labels_train.csv",
        [
            f"image_id,{reader},Nodule/Mass,Cardiomegaly,Other diseases,No finding",
            "aa11,R1,1,0,0,0",
            "bb22,R2,0,0,0,1",
            "aa11,R3,1,1,0,0",
            "aa11,R2,0,0,1,0",
        ],
    )
    write(
        root / tables / "image_labels_test.csv",
        ["image_id,Nodule/Mass,Cardiomegaly,Other disease,No finding", "cc33,0,1,0,0"],
    )
    for path in ("train/aa11.dicom", "train/bb22.dicom", "test/cc33.dicom"):
        picture(root, path)
    return root
