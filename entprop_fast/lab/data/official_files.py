"""List the official files of each data set: names, sizes, checksums, and how to ask for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.lab import stopping

_PART = 2**22  # bytes read at once


@dataclass(frozen=True)
class OfficialFile:
    """Describe a file as its authors publish it."""

    name: str
    size: int | None  # bytes; None: nobody says
    md5: str

    def __str__(self) -> str:
        size = "" if self.size is None else f"{self.size:,} bytes, "
        return f"{self.name} ({size}md5 {self.md5})"

    def is_at(self, path: Path) -> bool:
        """Return whether the file there is this one, bit for bit."""
        same_size = self.size is None or path.stat().st_size == self.size
        return same_size and md5_of(path) == self.md5


@dataclass(frozen=True)
class Source:
    """Say where a data set comes from and what of it is needed."""

    page: str  # that offers the files
    files: tuple[OfficialFile, ...]  # all of them, or, if `either`, any one
    place: str  # what to do with them, completing "fetch them and"; DIR is the folder
    either: bool = False  # one of the files is enough
    # Training images, test images and classes of the official set; None: any
    counts: tuple[int, int, int] | None = None


SOURCES: dict[str, Source] = {
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (
            OfficialFile("cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"),
            OfficialFile("cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
        ),
        "put it into DIR as it is, or unpacked",
        either=True,
        counts=(50_000, 10_000, 10),
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        (
            OfficialFile(
                "cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"
            ),
            OfficialFile(
                "cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8"
            ),
        ),
        "put it into DIR as it is, or unpacked",
        either=True,
        counts=(50_000, 10_000, 100),
    ),
    "cub": Source(
        "https://data.caltech.edu/records/65de6-vp158",
        (OfficialFile("CUB_200_2011.tgz", 1_150_585_339, "97eceeb196236b17998738112f37df78"),),
        "unpack it in DIR (tar -xzf CUB_200_2011.tgz)",
        counts=(5_994, 5_794, 200),
    ),
    "pets": Source(
        "https://www.robots.ox.ac.uk/~vgg/data/pets/",
        (
            OfficialFile("images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            OfficialFile("annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        "unpack both in DIR (images/ and annotations/ lie side by side)",
        counts=(3_680, 3_669, 37),
    ),
    "cars": Source(
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (gone; mirrors keep its files)",
        (
            OfficialFile("cars_train.tgz", 979_269_282, "065e5b463ae28d29e77c1b4b166cfe61"),
            OfficialFile("cars_test.tgz", 977_350_468, "4ce7ebf6a94d07f1952d94dd34c4d501"),
            OfficialFile("car_devkit.tgz", 330_960, "c3b158d763b6e2245038c8ad08e45376"),
            OfficialFile(
                "cars_test_annos_withlabels.mat", 185_758, "b0a2b23655a3edd16d84508592a98d10"
            ),
        ),
        "unpack the archives in DIR (cars_train/, cars_test/, devkit/ and the .mat side by side)",
        counts=(8_144, 8_041, 196),
    ),
    "imagenet": Source(
        "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php",
        (
            OfficialFile(
                "ILSVRC2012_img_train.tar", 147_897_477_120, "1d675b47d978889d74fa0da5fadfb00e"
            ),
            OfficialFile(
                "ILSVRC2012_img_val.tar", 6_744_924_160, "29b22e2961454d5413ddabcf34fc5622"
            ),
            OfficialFile("ILSVRC2012_devkit_t12.tar.gz", None, "fa75699e90414af021442c21a62c3abf"),
        ),
        "unpack them in DIR as train/<wnid>/*.JPEG and val/*.JPEG (docs/data.md has the commands)",
        counts=(1_281_167, 50_000, 1_000),
    ),
}


def missing(name: str, data_dir: Path | None) -> FileNotFoundError:
    """Return the error for a data set that is not there: what to fetch, and where to put it."""
    source = SOURCES[name]
    files = (" or " if source.either else ", ").join(map(str, source.files))
    where = "needs --data-dir DIR" if data_dir is None else f"is not in {data_dir}"
    place = source.place if data_dir is None else source.place.replace("DIR", str(data_dir))
    return FileNotFoundError(
        f"data set {name!r} {where}: fetch {files} from {source.page} and {place}"
    )


def check_archive(path: Path, official: OfficialFile) -> None:
    """Raise ``ValueError`` unless the archive is the official one, bit for bit."""
    size = path.stat().st_size
    hint = (
        "fetch it again; one that you packed yourself, unpack: a folder is judged by what it holds"
    )
    if official.size is not None and size != official.size:
        raise ValueError(
            f"{path} has {size:,} bytes, the official {official.name} {official.size:,}: {hint}"
        )
    if (found := md5_of(path)) != official.md5:
        raise ValueError(f"{path} has md5 {found}, the official file {official.md5}: {hint}")


def md5_of(path: Path) -> str:
    """Return the MD5 of a file's bytes, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(_PART):
            stopping.check()  # ImageNet's archive takes minutes
            digest.update(part)
    return digest.hexdigest()
