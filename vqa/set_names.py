"""What the classes of our sets' public sources are called in Vietnamese, and which category they are of.

Belongs here: these tables alone; the rules that use them are `vqa/prepare_sets.py`'s.
"""

FOOD = {
    "bánh": {
        "Banh beo": "bánh bèo",
        "Banh bot loc": "bánh bột lọc",
        "Banh can": "bánh căn",
        "Banh chung": "bánh chưng",
        "Banh cuon": "bánh cuốn",
        "Banh duc": "bánh đúc",
        "Banh gio": "bánh giò",
        "Banh khot": "bánh khọt",
        "Banh mi": "bánh mì",
        "Banh pia": "bánh pía",
        "Banh tet": "bánh tét",
        "Banh trang nuong": "bánh tráng nướng",
        "Banh xeo": "bánh xèo",
    },
    "món nước": {
        "Banh canh": "bánh canh",
        "Bun bo Hue": "bún bò Huế",
        "Bun mam": "bún mắm",
        "Bun rieu": "bún riêu",
        "Canh chua": "canh chua",
        "Chao long": "cháo lòng",
        "Hu tieu": "hủ tiếu",
        "Pho": "phở",
    },
    "món trộn": {
        "Bun dau mam tom": "bún đậu mắm tôm",
        "Bun thit nuong": "bún thịt nướng",
        "Cao lau": "cao lầu",
        "Mi quang": "mì Quảng",
    },
    "món mặn": {"Ca kho to": "cá kho tộ", "Goi cuon": "gỏi cuốn", "Nem chua": "nem chua"},
    "cơm và xôi": {"Com tam": "cơm tấm", "Xoi xeo": "xôi xéo"},
}
"""`vifood_vqa`: category → folder of the source → dish."""

PARTS = {
    "banh da": "bánh đa",
    "banh hoi": "bánh hỏi",
    "banh hu tieu": "bánh hủ tiếu",
    "banh pho": "bánh phở",
    "bi": "bì",
    "bun": "bún",
    "ca": "cá",
    "cac loai rau cu": "các loại rau củ",
    "cha": "chả",
    "cha com": "chả cốm",
    "com": "cơm",
    "dau hu": "đậu hũ",
    "doi sun": "dồi sụn",
    "dua chua": "dưa chua",
    "gan": "gan",
    "mi": "mì",
    "muc": "mực",
    "rau ram": "rau răm",
    "suon": "sườn",
    "thit bam": "thịt băm",
    "thit bo": "thịt bò",
    "thit ga": "thịt gà",
    "thit heo": "thịt heo",
    "thit heo quay": "thịt heo quay",
    "tom": "tôm",
    "tom tit": "tôm tít",
    "trung": "trứng",
    "vien moc": "viên mọc",
}
"""`viparts_vqa`: class of the source → what is asked for by yes/no and by place."""

COUNTED = {
    "cha": "chả",
    "cha ca": "chả cá",
    "cha gio": "chả giò",
    "dau hu": "đậu hũ",
    "naruto": "naruto",
    "suon": "sườn",
    "thit ga": "thịt gà",
    "tom": "tôm",
    "trung": "trứng",
    "vien moc": "viên mọc",
}
"""`viparts_vqa`: what is counted."""

MEALS = {
    "banh gao cay tokbokki": "bánh gạo cay tokbokki",
    "banh hoi heo quay": "bánh hỏi heo quay",
    "bun bo": "bún bò",
    "bun ca": "bún cá",
    "bun dau": "bún đậu",
    "bun hai san": "bún hải sản",
    "bun moc": "bún mọc",
    "com ca ri": "cơm cà ri",
    "com chien cai xoan": "cơm chiên cải xoăn",
    "com ga": "cơm gà",
    "com suon": "cơm sườn",
    "com suon bi cha": "cơm sườn bì chả",
    "com suon bi cha trung": "cơm sườn bì chả trứng",
    "com suon bi trung": "cơm sườn bì trứng",
    "com suon cha": "cơm sườn chả",
    "com suon trung": "cơm sườn trứng",
    "ga ran va khoai tay chien": "gà rán và khoai tây chiên",
    "hu tieu": "hủ tiếu",
    "hu tieu mi": "hủ tiếu mì",
    "mi ga hung que kem": "mì gà húng quế kem",
    "mi jajangmyeon": "mì jajangmyeon",
    "mi misoramen": "mì miso ramen",
    "mi quang": "mì Quảng",
    "mi tron": "mì trộn",
    "pho bo": "phở bò",
    "pho ga": "phở gà",
    "thit heo chien xu tonkatsu": "thịt heo chiên xù tonkatsu",
    "thit lon bistek": "thịt lợn bít tết",
    "xoi ga chien": "xôi gà chiên",
}
"""`viparts_vqa`: class of the source → dish."""


def _numbers(*ranges: int | tuple[int, int]) -> tuple[int, ...]:
    """Numbers of ImageNet's classes; pairs are from and to, both included."""
    return tuple(
        number for part in ranges for number in (range(part[0], part[1] + 1) if isinstance(part, tuple) else [part])
    )


THINGS = {
    "động vật": {
        "chó": (_numbers((151, 268)), "dog"),
        "mèo": (_numbers((281, 285)), "domestic_cat"),
        "chim": (_numbers((7, 24), (80, 100), (127, 146)), "bird"),
        "rắn": (_numbers((52, 68)), "snake"),
        "khỉ": (_numbers((365, 382)), "monkey"),
        "cá": (_numbers((0, 6), (389, 397)), "goldfish ray"),
        "côn trùng": (_numbers((300, 326)), "ant bee butterfly dragonfly ladybug"),
        "thằn lằn": (_numbers((38, 48)), "lizard"),
        "rùa": (_numbers((33, 37)), "turtle"),
        "gấu": (_numbers((294, 297), 387, 388), "bear giant_panda koala_bear red_panda"),
    },
    "đồ vật": {
        "nhạc cụ": (
            _numbers(
                401, 402, 420, 432, 486, 494, 513, 541, 546, 558, 566, 577, 579, 593, 594, 641, 642, 683, 684, 687, 699
            )
            + _numbers(776, 822, 875, 881, 889),
            "accordion banjo cello chime drum flute french_horn guitar harmonica harp maraca oboe piano saxophone "
            "trombone trumpet violin",
        ),
        "quả bóng": (
            _numbers(429, 430, 522, 574, 722, 768, 805, 852, 890),
            "baseball basketball croquet_ball golf_ball ping-pong_ball rugby_ball soccer_ball tennis_ball volleyball",
        ),
        "ô tô": (_numbers(407, 436, 468, 511, 555, 569, 609, 627, 656, 661, 675, 717, 734, 751, 817, 864, 867), "car"),
        "tàu thuyền": (_numbers(472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914), "watercraft"),
        "đồ nội thất": (
            _numbers(423, 453, 493, 495, 516, 520, 526, 532, 548, 553, 559, 564, 648, 703, 736, 765, 831, 846, 857, 861)
            + _numbers(
                894,
            ),
            "baby_bed bench bookshelf chair filing_cabinet sofa table",
        ),
        "quần áo": (
            _numbers(399, 411, 445, 457, 459, 474, 501, 568, 578, 601, 608, 610, 614, 617, 638, 639, 655, 697, 735, 834)
            + _numbers(841, 842, 869, 903, 906),
            "bow_tie brassiere miniskirt swimming_trunks tie",
        ),
        "mũ": (_numbers(433, 439, 452, 515, 518, 560, 667, 715, 793, 808), "bathing_cap hat_with_a_wide_brim helmet"),
        "đồ nhà bếp": (
            _numbers(412, 438, 463, 469, 473, 499, 503, 504, 505, 550, 567, 618, 623, 647, 651, 653, 659, 666, 725, 729)
            + _numbers(766, 809, 813, 827, 849, 859, 891, 898, 899, 907, 909, 910, 928, 968, 969),
            "bowl can_opener cocktail_shaker coffee_maker corkscrew cup_or_mug frying_pan ladle microwave milk_can "
            "pitcher plate_rack refrigerator salt_or_pepper_shaker spatula stove strainer toaster waffle_iron",
        ),
        "đồ điện tử": (
            _numbers(482, 487, 508, 527, 528, 530, 590, 592, 605, 613, 620, 632, 650, 664, 673, 681, 707, 732, 740, 742)
            + _numbers(745, 754, 761, 782, 844, 848, 851),
            "computer_keyboard computer_mouse digital_clock ipod laptop microphone printer remote_control tape_player "
            "tv_or_monitor",
        ),
        "dụng cụ": (
            _numbers(477, 491, 512, 587, 596, 677, 695, 696, 710, 740, 749, 758, 783, 784, 792, 845),
            "axe chain_saw hammer power_drill ruler screwdriver",
        ),
    },
    "thực phẩm": {
        "trái cây": (_numbers((948, 957)), "apple banana fig lemon orange pineapple pomegranate strawberry"),
        "rau củ": (_numbers((936, 947)), "artichoke bell_pepper cucumber head_cabbage mushroom"),
        "món ăn": (_numbers((924, 935), (959, 965)), "bagel burrito guacamole hamburger hotdog pizza"),
    },
}
"""`viphoto_vqa`: category → label → numbers of ImageNet's classes, and names of the 200 of its detection task."""
