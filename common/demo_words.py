"""What Gradio itself says on the page, in the page's language: its labels, and its messages in the browser.

Belongs here: these words, and the script that puts them in place. What the page says of its own is with its parts.
"""

import json

# Gradio's own words, where it has none.
GRADIO = {
    "vi": {
        "common": {
            "or": "hoặc",
            "clear": "Xóa",
            "remove": "Bỏ",
            "loading": "Đang tải",
            "error": "Lỗi",
            "empty": "Trống",
            "submit": "Gửi",
            "progress": "Tiến độ",
            "no_devices": "Không tìm thấy máy ảnh",
            "download": "Tải về",
        },
        "upload_text": {
            "drop_image": "Thả ảnh vào đây",
            "drop_file": "Thả tệp vào đây",
            "click_to_upload": "Bấm để chọn tệp",
            "paste_clipboard": "Dán từ bộ nhớ tạm",
        },
        "image": {
            "allow_webcam_access": "Hãy cho phép dùng máy ảnh.",
            "image": "Ảnh",
            "remove_image": "Bỏ ảnh",
            "drop_to_upload": "Thả một bức ảnh vào đây",
        },
        "file": {"uploading": "Đang gửi..."},
        "status": {"queue_position": "Đang chờ: {position} trong {size}"},
        "blocks": {
            "lost_connection": "Mất kết nối vì đã rời trang. Đang xếp hàng lại...",
            "waiting_for_inputs": "Tệp chưa gửi xong, hãy thử lại.",
            "connection_can_break": "Trên điện thoại, kết nối có thể đứt khi rời trang hoặc khi máy ngủ.",
        },
    },
}
# What Gradio says in the browser, in English whatever the language: pattern, and what is said instead.
TOASTS = {
    "vi": [
        ["^Invalid file type: (.*?)\\. Only .*", "$1 không phải là ảnh. Hãy dùng JPEG, PNG hoặc WebP."],
        ['^File\\(s\\) exceed the maximum allowed size of ([\\d.]+) Mb: "(.*)"$', "$2 quá lớn: nhiều nhất $1 MB."],
        ["^Queue is full.*", "Đang có quá nhiều người chờ. Hãy thử lại sau ít phút."],
        [
            "^(Connection errored out|Could not connect|Connection to the server was lost).*",
            "Mất kết nối với trang này.",
        ],
        ["^Error$", "Lỗi"],
        ["^Click to Access Webcam$", "Bấm để dùng máy ảnh"],
    ],
    "en": [
        ["^Invalid file type: (.*?)\\. Only .*", "$1 is not a photo. Use JPEG, PNG or WebP."],
        ['^File\\(s\\) exceed the maximum allowed size of ([\\d.]+) Mb: "(.*)"$', "$2 is too large: at most $1 MB."],
        ["^Queue is full.*", "Too many people are waiting. Try again in a few minutes."],
    ],
}
_SCRIPT = """() => {
  document.documentElement.lang = LANGUAGE;
  // Gradio follows the browser's language, and has no other way to another one than the module that keeps it.
  const loaded = performance.getEntriesByType("resource");
  const core = loaded.find((entry) => /\\/assets\\/core-[^/]*\\.js$/.test(entry.name));
  if (core) import(core.name).then((module) => module.changeLocale && module.changeLocale(LANGUAGE));
  const said = TOASTS.map(([pattern, text]) => [new RegExp(pattern), text]);
  const translate = (node) => {
    const told = node.nodeValue.trim();
    for (const [pattern, text] of said) if (pattern.test(told)) { node.nodeValue = told.replace(pattern, text); break; }
  };
  new MutationObserver(() => {
    for (const place of document.querySelectorAll(".toast-body, #photo button")) {
      const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) translate(texts.currentNode);
    }
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
}"""


def script(language: str) -> str:
    """For the browser, when the page is loaded: the page's language, whatever the browser's own is."""
    return _SCRIPT.replace("LANGUAGE", json.dumps(language)).replace("TOASTS", json.dumps(TOASTS[language]))
