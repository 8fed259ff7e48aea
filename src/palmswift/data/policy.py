"""Every check a row goes through: its stable code, what may be done, what is done by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from palmswift.data.row import Kind, RowError
from palmswift.errors import InputError, Problem
from palmswift.recipes.recipe import Task

Action = Literal[
    "reject", "keep", "drop", "merge", "join", "strip", "neutralise", "mask", "truncate", "split"
]
"""What is done with a row that a check finds: `reject` leaves it out, `keep` trains it as it is
and reports it; the others repair it, which is counted as a change."""


class Check(NamedTuple):
    """What a code means, in both languages of the report, and what may be done about it."""

    en: str
    zh: str
    actions: tuple[Action, ...] = ("reject",)
    """The first is the default; `data.rules` chooses another."""


class Label(NamedTuple):
    """What a change was, in both languages of the report."""

    en: str
    zh: str


def kind_of(task: Task) -> Kind:
    """The kind of rows that a task trains on."""
    if task == "orpo" or task == "simpo" or task == "cpo":
        return "dpo"
    return "sft" if task == "gkd" else task


class Policy:
    """What is done about each finding, as a recipe's `data.rules` chooses."""

    def __init__(self, rules: Mapping[str, str] | None = None) -> None:
        """InputError with every rule that names no check, or an action its check does not have."""
        chosen = dict(rules or {})
        problems = []
        for code, action in chosen.items():
            where = f"data.rules.{code}"
            if code not in CHECKS:
                problems.append(
                    Problem("there is no such check", where, "data/README.md lists all")
                )
            elif action not in CHECKS[code].actions:
                what = f"`{action}` is not what can be done about it"
                problems.append(Problem(what, where, f"one of {', '.join(CHECKS[code].actions)}"))
        if problems:
            raise InputError("the rules cannot be used", problems)
        self._actions: dict[str, Action] = {
            code: next(
                (name for name in check.actions if name == chosen.get(code)), check.actions[0]
            )
            for code, check in CHECKS.items()
        }

    def action(self, code: str) -> Action:
        """What is done with a row that has the finding `code`."""
        return self._actions[code]


@dataclass(slots=True)
class Notes:
    """What was found and what was altered in one row so far."""

    policy: Policy
    changes: set[str] = field(default_factory=set)
    findings: set[str] = field(default_factory=set)

    def found(self, code: str, detail: str) -> Action:
        """What the policy does about `code`; RowError where that is to reject the row."""
        action = self.policy.action(code)
        if action == "reject":
            raise RowError(code, detail)
        if action == "keep":
            self.findings.add(code)
        return action


CHECKS: dict[str, Check] = {
    # reading
    "broken_json": Check("The text is not valid JSON.", "不是合法的 JSON。"),
    "duplicate_key": Check("A key stands twice in one object.", "同一对象中出现重复的键。"),
    "not_an_object": Check("The row is not a JSON object.", "该行不是 JSON 对象。"),
    "broken_csv": Check("Quotes or cells of the CSV record are broken.", "CSV 引号或单元格损坏。"),
    "wrong_column_count": Check(
        "The record has more or fewer cells than the header.", "单元格数与表头不一致。"
    ),
    "broken_cell": Check(
        "A cell holds a formula without a stored result, or an error such as #N/A.",
        "单元格是没有保存结果的公式，或 #N/A 之类的错误值。",
    ),
    "row_too_large": Check(
        "The row has more than 16 Mi characters: no model is trained on that.",
        "该行超过 16 Mi 字符，无法用于训练。",
    ),
    # shape
    "unknown_shape": Check(
        "No known columns for a question, an answer or messages.",
        "找不到问题、答案或 messages 列。",
    ),
    "ambiguous_columns": Check(
        "Several columns could be the same thing; none was guessed.",
        "多个列含义相同，无法判断用哪一个。",
    ),
    "unsupported_column": Check(
        "A column that changes what is trained (images, video, audio) is not handled.",
        "含有暂不支持的训练列（图片、视频、音频等）。",
    ),
    "other_task": Check(
        "The row is made for another task than the recipe trains.",
        "该行是为另一种训练任务准备的。",
    ),
    "plain_text": Check(
        "Plain text without a question: train it with `task: pt`, or name the columns.",
        "只有纯文本、没有提问：请用 pt 任务训练，或指定列名。",
    ),
    "broken_history": Check(
        "`history` is not a list of [question, answer] pairs.", "history 不是 [问, 答] 列表。"
    ),
    "broken_turn": Check("A turn has no role or no content.", "某一轮缺少角色或内容。"),
    "unsupported_message_key": Check(
        "A key of a turn that changes what is trained (loss, weight, images) is not handled.",
        "某一轮含有暂不支持的键（loss、weight、图片等）。",
    ),
    # structure and content
    "no_messages": Check("There are no turns.", "没有任何对话轮次。"),
    "no_question": Check("There is no question.", "没有问题。"),
    "blank_question": Check("A question is blank.", "问题为空。"),
    "no_answer": Check("There is no answer.", "没有答案。"),
    "blank_answer": Check(
        "An answer is blank: it would teach the model to say nothing.",
        "答案为空：会教模型什么也不说。",
    ),
    "think_only_answer": Check(
        "An answer is a think block with nothing after it.", "答案只有思考内容。"
    ),
    "unclosed_think": Check(
        "<think> and </think> do not pair up in an answer.", "<think> 与 </think> 不成对。"
    ),
    "misplaced_think": Check(
        "A think block is not the one at the start of its answer.", "思考块不在答案开头或多于一个。"
    ),
    "unknown_role": Check("A turn's role is not known.", "未知的角色。"),
    "system_not_first": Check("A system turn stands after the first turn.", "system 不在最前。"),
    "first_turn_not_user": Check(
        "The dialogue does not begin with a question.", "对话不以用户开始。", ("reject", "drop")
    ),
    "two_turns_in_a_row": Check(
        "One side speaks twice in a row.", "同一方连续发言。", ("reject", "merge")
    ),
    "tool_order": Check(
        "Tool calls and tool responses do not follow each other.", "工具调用与工具返回的顺序不对。"
    ),
    "last_turn_not_assistant": Check(
        "The dialogue does not end with an answer.", "对话不以回答结束。", ("drop", "reject")
    ),
    "non_text_content": Check(
        "A content is not text (number, list, object, image).", "内容不是文本。"
    ),
    "invalid_characters": Check(
        "NUL, or bytes that are no characters of the file's encoding.",
        "含有 NUL 或无法解码的字节。",
    ),
    "control_tokens": Check(
        "A control token such as <|im_end|> stands in the text: it would forge or end a turn.",
        "正文含有控制符（如 <|im_end|>），会伪造或截断对话。",
        ("neutralise", "reject"),
    ),
    "placeholder": Check(
        "{{ROUND0}} or {{ROUND1}} in the text, which ms-swift would rewrite.",
        "正文含有会被 ms-swift 改写的占位符。",
        ("neutralise", "reject"),
    ),
    "only_timestamps": Check(
        "Every turn is a date, which the loader of ms-swift would turn into numbers.",
        "每一轮都是日期，会被加载器转成数字。",
    ),
    # dialogues and plain text
    "broken_chatml": Check(
        "The ChatML text does not divide into turns.", "ChatML 文本无法拆成对话轮次。"
    ),
    "broken_tool_call": Check(
        "A tool call or the list of tools is not JSON of the known form.",
        "工具调用或工具列表不是合法的 JSON。",
    ),
    "spaced_chinese": Check(
        "Chinese text has spaces between its words, as in LCCC.",
        "中文词语之间有空格（如 LCCC）。",
        ("keep", "join", "reject"),
    ),
    "no_text": Check("There is no text to train on.", "没有可训练的文本。"),
    # preference pairs, labels, rewards
    "no_rejected_answer": Check(
        "There is no rejected answer to compare with.", "缺少被拒绝的答案。"
    ),
    "chosen_equals_rejected": Check(
        "The chosen and the rejected answer are the same.", "优选与拒绝的答案相同。"
    ),
    "rejected_other_prompt": Check(
        "The rejected answer belongs to another prompt.", "拒绝答案对应的提问不同。"
    ),
    "tool_turns_in_pair": Check(
        "Tool turns stand between the last question and the two answers: ms-swift would leave them "
        "out of the rejected one.",
        "最后一问与两个答案之间有工具轮次，ms-swift 会在拒绝答案中丢掉它们。",
    ),
    "no_label": Check("There is no label that says yes or no.", "缺少真/假标签。"),
    "broken_label": Check("The label is neither yes nor no.", "标签既不是真也不是假。"),
    # what the text is like
    "invisible_characters": Check(
        "Control, zero-width or direction characters that nobody sees.",
        "含有不可见的控制符或零宽字符。",
        ("strip", "keep", "reject"),
    ),
    "mojibake": Check(
        "Text that was decoded with the wrong encoding (such as ä½ å¥½ or 锟斤拷).",
        "疑似乱码（如 锟斤拷）。",
        ("keep", "reject"),
    ),
    "boilerplate": Check(
        "A refusal or `as an AI` boilerplate as the answer.",
        "答案是拒答或“作为人工智能”式套话。",
        ("keep", "reject"),
    ),
    "unusual_length": Check(
        "The answer is far shorter or longer than the others.",
        "答案比其他答案短得多或长得多。",
        ("keep", "reject"),
    ),
    # what should not leave the house
    "phone_number": Check("A telephone number.", "含有电话号码。", ("keep", "mask", "reject")),
    "id_number": Check("An identity card number.", "含有身份证号。", ("keep", "mask", "reject")),
    "bank_card": Check("A bank card number.", "含有银行卡号。", ("keep", "mask", "reject")),
    "email": Check("An e-mail address.", "含有邮箱地址。", ("keep", "mask", "reject")),
    "secret": Check(
        "A password, key or token.", "含有密码、密钥或令牌。", ("keep", "mask", "reject")
    ),
    # other rows
    "duplicate": Check(
        "The same conversation stands earlier.", "与前面的对话完全相同。", ("reject", "keep")
    ),
    "also_in_train": Check(
        "The validation row also stands in training.",
        "验证行同时出现在训练集中。",
        ("reject", "keep"),
    ),
    "mixed_types": Check(
        "A column for reward functions holds another type of value than in most rows: ms-swift "
        "could not load the file.",
        "奖励函数用的列在该行中的类型与多数行不同，ms-swift 会无法加载文件。",
    ),
    "near_duplicate": Check(
        "Nearly the same conversation stands earlier.", "与前面的对话几乎相同。", ("keep", "reject")
    ),
    "near_in_train": Check(
        "The validation row nearly stands in training.",
        "验证行与训练集中的行几乎相同。",
        ("keep", "reject"),
    ),
    "conflicting_answers": Check(
        "The same question stands with another answer.",
        "同一问题有不同的答案。",
        ("keep", "reject"),
    ),
    # ms-swift's template
    "over_length": Check(
        "More tokens than the recipe's max_length.",
        "token 数超过配方的 max_length。",
        ("reject", "truncate", "split"),
    ),
    "zero_supervised_tokens": Check(
        "The template leaves no token to learn from.", "模板处理后没有可学习的 token。"
    ),
    "no_supervised_text": Check(
        "The tokens to learn from hold no text.", "可学习的 token 中没有文字。"
    ),
    "no_eos": Check(
        "The end of the answer is cut off: the model would not learn to stop.",
        "答案结尾被截断，模型学不会停止。",
    ),
    "template_error": Check("ms-swift's template refuses the row.", "ms-swift 模板拒绝该行。"),
}
"""Code to its meaning and what may be done. A code is never renamed: people filter by it."""

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
    "chatml_parsed": Label("ChatML text was parsed into turns.", "将 ChatML 文本拆成了对话。"),
    "reasoning_joined": Label(
        "A reasoning given apart was put into the answer's think block.",
        "将单独给出的推理放入了答案的思考块。",
    ),
    "tool_calls_rewritten": Label(
        "Tool calls were brought into ms-swift's form.", "将工具调用改写为 ms-swift 的格式。"
    ),
    "label_read": Label(
        "A label in another spelling was read as true or false.", "将其他写法的标签读作真或假。"
    ),
    "answer_to_solution": Label(
        "The answer became the `solution` that rewards compare with.",
        "将答案作为奖励函数所用的 solution。",
    ),
    "answer_dropped": Label(
        "An answer beside a `solution` was left out: grpo trains on the prompt.",
        "已有 solution，去掉了多余的答案（grpo 只用提问）。",
    ),
    "solution_made_text": Label(
        "A solution that was no text was written as text.", "将非文本的 solution 写成了文本。"
    ),
    "last_turn_dropped": Label(
        "A question without an answer at the end was left out.", "去掉了结尾无回答的提问。"
    ),
    "first_turns_dropped": Label(
        "Answers before the first question were left out.", "去掉了首个提问之前的回答。"
    ),
    "turns_merged": Label("Turns of one side in a row were merged.", "合并了同一方的连续发言。"),
    "spaces_joined": Label("Spaces between Chinese words were removed.", "去除了中文词间空格。"),
    "end_token_dropped": Label(
        "An end token at the end of a turn was left out: the template puts its own.",
        "去掉了结尾的终止符（模板会自行添加）。",
    ),
    "control_tokens_neutralised": Label(
        "Control tokens in the text were turned into plain text.", "将正文中的控制符改为普通文本。"
    ),
    "placeholders_neutralised": Label(
        "Placeholders that ms-swift would rewrite were turned into plain text.",
        "将会被改写的占位符改为普通文本。",
    ),
    "invisible_stripped": Label("Invisible characters were removed.", "去除了不可见字符。"),
    "private_masked": Label(
        "Numbers, addresses or secrets were masked.", "对号码、地址或密钥做了遮盖。"
    ),
    "older_turns_dropped": Label(
        "The oldest turns were left out so that the row fits max_length.",
        "去掉最早的轮次以满足 max_length。",
    ),
    "repeated_part_dropped": Label(
        "A part of a divided row that also stands elsewhere was left out.",
        "拆分后与其他行重复的部分被去掉。",
    ),
    "split_at_turns": Label(
        "The row was split at a turn into rows that fit max_length.",
        "按轮次拆分以满足 max_length。",
    ),
}
"""Kind of change to its meaning; each is counted once a row."""
