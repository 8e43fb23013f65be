"""Lock the packages that the emoji set is made of, and say under which licences."""

from __future__ import annotations

from entprop_fast.lab.data.emoji.npm_packages import Package

_NOTO = "https://github.com/googlefonts/noto-emoji"
_FLUENT = "https://github.com/microsoft/fluentui-emoji"

# The concepts: Unicode's names and groups.
CONCEPTS = Package(
    "emojibase-data",
    "17.0.0",
    "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    "MIT",
    "Miles Johnson",
    "https://github.com/milesj/emojibase",
)

# The artists, in the order in which their names for a thing are looked at.
STYLES = (
    Package(
        "@iconify-json/noto",
        "1.2.9",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Google Inc",
        _NOTO,
    ),
    Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "Google Inc",
        _NOTO,
    ),
    Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twitter",
        "https://github.com/jdecked/twemoji",
    ),
    Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "Microsoft Corporation",
        _FLUENT,
    ),
    Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Microsoft Corporation",
        _FLUENT,
    ),
    Package(
        "@iconify-json/emojione",
        "1.2.3",
        "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
        "CC-BY-4.0",
        "Emoji One",
        "https://github.com/EmojiTwo/emojitwo",
    ),
    Package(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "UjI2VQEXVtGlPBvQuxEizro7QCgBcJDOYwKUupquvvZ8UV4xOlvm45IU82JYWegiAWLerY79gFLMZ26U6Ms+ww==",
        "CC-BY-SA-4.0",
        "Emoji One",
        "https://github.com/joypixels/emojione-legacy",
    ),
    Package(
        "@iconify-json/fxemoji",
        "1.2.2",
        "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
        "Apache-2.0",
        "Mozilla",
        "https://github.com/mozilla/fxemoji",
    ),
    Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
        "CC-BY-SA-4.0",
        "OpenMoji",
        "https://github.com/hfg-gmuend/openmoji",
    ),
)
UNSEEN_ARTIST = "openmoji"  # whose pictures are in no training set


def licences() -> str:
    """Write the text that goes beside the pictures: whose work they are, and under which terms."""
    lines = [
        "The pictures of the emoji set are these authors' work, drawn small by resvg from the",
        "vector graphics of the npm packages named, and under their licences. CC-BY-SA-4.0 asks",
        "that what is made of a work is passed on under the same licence.",
        "",
    ]
    for one in (*STYLES, CONCEPTS):
        lines += [f"{one.name} {one.version}: {one.licence}, {one.by}, {one.source}"]
    lines += [
        "",
        "Apache-2.0: https://www.apache.org/licenses/LICENSE-2.0",
        "MIT: https://opensource.org/license/mit",
        "CC-BY-4.0: https://creativecommons.org/licenses/by/4.0/",
        "CC-BY-SA-4.0: https://creativecommons.org/licenses/by-sa/4.0/",
    ]
    return "\n".join(lines) + "\n"
