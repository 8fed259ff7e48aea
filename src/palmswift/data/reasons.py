"""The reason codes of rejected rows and the kinds of change made to kept ones."""

from __future__ import annotations

from typing import NamedTuple


class Label(NamedTuple):
    """What a code means, in both languages of the report."""

    en: str
    zh: str


REASONS: dict[str, Label] = {
    # reading
    "broken_json": Label("The text is not valid JSON.", "不是合法的 JSON。"),
    "duplicate_key": Label("A key stands twice in one object.", "同一对象中出现重复的键。"),
    "not_an_object": Label("The row is not a JSON object.", "该行不是 JSON 对象。"),
    "broken_csv": Label("Quotes or cells of the CSV record are broken.", "CSV 引号或单元格损坏。"),
    "wrong_column_count": Label(
        "The record has more or fewer cells than the header.", "单元格数与表头不一致。"
    ),
    # shape
    "unknown_shape": Label(
        "No known columns for a question, an answer or messages.",
        "找不到问题、答案或 messages 列。",
    ),
    "ambiguous_columns": Label(
        "Several columns could be the same thing; none was guessed.",
        "多个列含义相同，无法判断用哪一个。",
    ),
    "unsupported_column": Label(
        "A column that changes what is trained (tools, images, preference pairs) is not handled.",
        "含有暂不支持的训练列（工具、图片、偏好对等）。",
    ),
    "broken_history": Label(
        "`history` is not a list of [question, answer] pairs.", "history 不是 [问, 答] 列表。"
    ),
    "broken_turn": Label("A turn has no role or no content.", "某一轮缺少角色或内容。"),
    "unsupported_message_key": Label(
        "A key of a turn that changes what is trained (tool_calls, loss, weight) is not handled.",
        "某一轮含有暂不支持的键（tool_calls、loss 等）。",
    ),
    # structure and content
    "no_messages": Label("There are no turns.", "没有任何对话轮次。"),
    "no_question": Label("There is no question.", "没有问题。"),
    "blank_question": Label("A question is blank.", "问题为空。"),
    "no_answer": Label("There is no answer.", "没有答案。"),
    "blank_answer": Label(
        "An answer is blank: it would teach the model to say nothing.",
        "答案为空：会教模型什么也不说。",
    ),
    "think_only_answer": Label(
        "An answer is a think block with nothing after it.", "答案只有思考内容。"
    ),
    "unclosed_think": Label(
        "<think> and </think> do not pair up in an answer.", "<think> 与 </think> 不成对。"
    ),
    "misplaced_think": Label(
        "A think block is not the one at the start of its answer.", "思考块不在答案开头或多于一个。"
    ),
    "unknown_role": Label("A turn's role is not known.", "未知的角色。"),
    "tool_role": Label("Tool turns are not handled.", "暂不支持工具角色。"),
    "system_not_first": Label("A system turn stands after the first turn.", "system 不在最前。"),
    "first_turn_not_user": Label(
        "The dialogue does not begin with a question.", "对话不以用户开始。"
    ),
    "two_turns_in_a_row": Label("One side speaks twice in a row.", "同一方连续发言。"),
    "last_turn_not_assistant": Label(
        "The dialogue does not end with an answer.", "对话不以回答结束。"
    ),
    "non_text_content": Label(
        "A content is not text (number, list, object, image).", "内容不是文本。"
    ),
    "invalid_characters": Label(
        "NUL, or bytes that are no characters of the file's encoding.",
        "含有 NUL 或无法解码的字节。",
    ),
    "control_tokens": Label(
        "A control token such as <|im_end|> stands in the text: it would forge or end a turn.",
        "正文含有控制符（如 <|im_end|>），会伪造或截断对话。",
    ),
    "placeholder": Label(
        "{{ROUND0}} or {{ROUND1}} in the text, which ms-swift would rewrite.",
        "正文含有会被 ms-swift 改写的占位符。",
    ),
    "only_timestamps": Label(
        "Every turn is a date, which the loader of ms-swift would turn into numbers.",
        "每一轮都是日期，会被加载器转成数字。",
    ),
    # other rows
    "duplicate": Label("The same conversation stands earlier.", "与前面的对话完全相同。"),
    "also_in_train": Label(
        "The validation row also stands in training.", "验证行同时出现在训练集中。"
    ),
    # ms-swift's template
    "over_length": Label(
        "More tokens than the recipe's max_length.", "token 数超过配方的 max_length。"
    ),
    "zero_supervised_tokens": Label(
        "The template leaves no token to learn from.", "模板处理后没有可学习的 token。"
    ),
    "no_supervised_text": Label(
        "The tokens to learn from hold no text.", "可学习的 token 中没有文字。"
    ),
    "no_eos": Label(
        "The end of the answer is cut off: the model would not learn to stop.",
        "答案结尾被截断，模型学不会停止。",
    ),
    "template_error": Label("ms-swift's template refuses the row.", "ms-swift 模板拒绝该行。"),
}
"""Reason code to its meaning. A code is never renamed; rows with one of them are rejected."""

CHANGES: dict[str, Label] = {
    "whitespace_stripped": Label("Blank space around a turn was removed.", "去除了首尾空白。"),
    "blank_system_dropped": Label("A blank system prompt was left out.", "去掉了空的系统提示。"),
    "system_added": Label("The recipe's system prompt was added.", "补上了配方的系统提示。"),
    "role_renamed": Label(
        "A role was renamed (human to user, gpt to assistant).", "统一了角色名称。"
    ),
    "text_parts_joined": Label(
        "A content given in text parts was joined.", "合并了分段的文本内容。"
    ),
    "columns_dropped": Label(
        "Columns that are not trained on were left out.", "去掉了不参与训练的列。"
    ),
    "message_keys_dropped": Label(
        "Keys of a turn other than role and content were left out.", "去掉了轮次中的多余键。"
    ),
}
"""Kind of change to its meaning; each is counted once a row."""
