"""What the analyst's model would say about the sales data set, by rule: the offline half.

A question is read as a few slots (what is counted, by what, of which part), in English or
Chinese. A follow-up fills only some of them and takes the rest from the question before.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from chat_model import NOTICE, ModelError
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

METRICS = {
    "average order value": (
        r"average order(?: value)?|客单价|平均订单(?:金额)?",
        "round(sum(o.revenue) / count(*), 2)",
    ),
    "revenue": (r"revenue|sales|turnover|销售额|收入|营收", "round(sum(o.revenue), 2)"),
    "orders": (r"orders?|订单", "count(*)"),
    "units": (r"units|quantity|pieces|销量|件", "sum(o.quantity)"),
    "customers": (r"customers|客户", "count(distinct o.customer_id)"),
}
MONTH, YEAR = "substr(o.ordered_on, 1, 7)", "substr(o.ordered_on, 1, 4)"
QUARTER_NUMBER = "((cast(substr(o.ordered_on, 6, 2) as integer) + 2) / 3)"
GROUPS = {
    "region": (r"regions?|地区|区域", "c.region"),
    "category": (r"categor(?:y|ies)|品类|类别", "p.category"),
    "product": (r"products?|产品|商品", "p.name"),
    "segment": (r"segments?|channels?|渠道", "c.segment"),
    "customer": (r"customers?|客户", "c.name"),
    "month": (r"months?|月份?", MONTH),
    "quarter": (r"quarters?|季度?", f"{YEAR} || '-Q' || {QUARTER_NUMBER}"),
    "year": (r"years?|年份?", YEAR),
}
BY = (
    r"(?:\b(?:by|per|each|which|what|top|bottom|best[- ]selling|worst[- ]selling)|[按各每哪前])"
    r"(?:\s*[\d一二三五十]+)?\s*(?:个|名|的|best[- ]selling|worst[- ]selling)?\s*"
)
ADVERBS = {"monthly": "month", "quarterly": "quarter", "yearly": "year", "annual": "year"}
# Longer names first, for "Green Tea" is not the category "Tea".
VALUES: dict[str, dict[str, str]] = {
    "p.name": {
        "Espresso Beans": "espresso beans|浓缩咖啡豆",
        "Filter Beans": "filter beans|滤泡咖啡豆",
        "Decaf Beans": "decaf beans|低因咖啡豆",
        "Cold Brew": "cold brew|冷萃",
        "Green Tea": "green tea|绿茶",
        "Black Tea": "black tea|红茶",
        "Oolong": "oolong|乌龙茶?",
        "Hand Mill": "hand mills?|手摇磨豆机",
        "Kettle": "kettles?|水壶",
        "Paper Filters": "paper filters?|滤纸",
    },
    "p.category": {"Coffee": "coffee|咖啡", "Tea": r"\btea\b|茶", "Equipment": "equipment|器具"},
    "c.region": {
        "North": r"\bnorth\b|北[区部]|华北",
        "South": r"\bsouth\b|南[区部]|华南",
        "East": r"\beast\b|东[区部]|华东",
        "West": r"\bwest\b|西[区部]|华西",
    },
    "c.segment": {"Retail": "retail|零售", "Wholesale": "wholesale|批发", "Online": "online|线上"},
}
NUMBERS = {"一": 1, "二": 2, "三": 3, "四": 4, "五": 5, "十": 10}
ENGLISH = "No data", "The {} is {:,}", "Highest {}: {} ({:,})", "; lowest: {} ({:,})", "."
CHINESE = "没有数据", "{} 为 {:,}", "{} 最高：{}（{:,}）", "；最低：{}（{:,}）", "。"
IN_CHINESE = {
    "average order value": "客单价",
    "revenue": "销售额",
    "orders": "订单数",
    "units": "销量",
    "customers": "客户数",
}
FOLLOW_UP = r"^(?:and|what about|how about|only|now|那|再|只看)\b|^[那再]|呢[??]?$"


@dataclass(frozen=True)
class Slots:
    metric: str | None = None
    group: str | None = None
    values: dict[str, str] = field(default_factory=dict[str, str])
    year: str | None = None
    quarter: int | None = None
    top: int | None = None  # negative: from the bottom

    @classmethod
    def read(cls, text: str) -> Self:
        def take(pattern: str) -> re.Match[str] | None:
            # What has been understood is taken out, so that it is not understood twice.
            nonlocal text
            if found := re.search(pattern, text, re.IGNORECASE):
                text = text[: found.start()] + " " + text[found.end() :]
            return found

        lowest = re.search("lowest|least|worst|fewest|bottom|最[低少差小]", text, re.IGNORECASE)
        extreme = re.search("highest|most|best|which|最|哪", text, re.IGNORECASE) or lowest
        count = re.search(
            r"(?:top|bottom|前|best|worst)\s*(\d+|[一二三四五十])", text, re.IGNORECASE
        )
        top = (NUMBERS.get(count[1]) or int(count[1])) if count else 1 if extreme else None
        quarter = take("Q([1-4])|第?([一二三四])季度")
        year = take(r"(20\d\d)年?")
        values = {
            column: name
            for column, names in VALUES.items()
            for name, pattern in names.items()
            if take(pattern)
        }
        adverb = next((name for name in ADVERBS if take(rf"\b{name}\b")), "")
        group = ADVERBS.get(adverb) or next(
            (name for name, (pattern, _) in GROUPS.items() if take(f"{BY}(?:{pattern})")), None
        )
        return cls(
            metric=next((name for name, (pattern, _) in METRICS.items() if take(pattern)), None),
            group=group,
            values=values,
            year=year[1] if year else None,
            quarter=(NUMBERS.get(quarter[2]) or int(quarter[1])) if quarter else None,
            top=-top if top and lowest else top,
        )

    def after(self, earlier: "Slots") -> "Slots":
        """What a follow-up means: its own slots, and the earlier question's for the rest."""
        return replace(
            self,
            metric=self.metric or earlier.metric,
            group=self.group or earlier.group,
            values=earlier.values | self.values,
            year=self.year or earlier.year,
            quarter=self.quarter or earlier.quarter,
            top=self.top or (None if self.group else earlier.top),
        )

    def question(self) -> str:
        parts = [self.metric or "revenue"]
        parts += [f"by {self.group}"] if self.group else []
        parts += [f"for {', '.join(self.values.values())}"] if self.values else []
        parts += [f"in {self.year}"] if self.year else []
        parts += [f"Q{self.quarter}"] if self.quarter else []
        parts += [f"{'top' if self.top > 0 else 'bottom'} {abs(self.top)}"] if self.top else []
        return " ".join(parts)

    def sql(self) -> str:
        metric = self.metric or "revenue"
        value = f"{METRICS[metric][1]} as {metric.replace(' ', '_')}"
        where = [f"{column} = '{name}'" for column, name in self.values.items()]
        where += [f"{YEAR} = '{self.year}'"] if self.year else []
        where += [f"{QUARTER_NUMBER} = {self.quarter}"] if self.quarter else []
        parts = [
            "select",
            f"{GROUPS[self.group][1]} as {self.group}, {value}" if self.group else value,
            "from orders o join customers c using (customer_id)",
            "join products p using (product_id)",
        ]
        parts += ["where", " and ".join(where)] if where else []
        if self.group:
            in_time = self.group in {"month", "quarter", "year"} and not self.top
            way = "asc" if self.top and self.top < 0 else "desc"
            parts.append("group by 1 order by 1" if in_time else f"group by 1 order by 2 {way}, 1")
            parts += [f"limit {abs(self.top)}"] if self.top else []
        return " ".join(parts)


def restate(messages: Sequence[BaseMessage]) -> AIMessage:
    """The question, put so that it can be read alone."""
    found = re.findall(r"^(?:Earlier question|Now): (.*)$", messages[-1].text, re.MULTILINE)
    earlier, now = Slots.read(found[0]), Slots.read(found[-1])
    alone = now.metric and not re.search(FOLLOW_UP, found[-1], re.IGNORECASE)
    if alone or now == Slots():
        return AIMessage(found[-1])
    return AIMessage(now.after(earlier).question())


def write_sql(messages: Sequence[BaseMessage]) -> AIMessage:
    asked = next(m.text for m in messages if isinstance(m, HumanMessage))
    slots = Slots.read(asked)
    if slots.metric is None or "ordered_on" not in messages[0].text:
        raise ModelError(
            "Without OPENAI_API_KEY only questions about the sales data set can be answered, such"
            " as 'revenue by region in 2024' or '2025年各月订单'."
        )
    return AIMessage(slots.sql())


def tell(messages: Sequence[BaseMessage]) -> AIMessage:
    """One sentence on the rows, in the language of the question."""
    data = json.loads(messages[-1].text)
    columns, rows = data["columns"], data["rows"]
    name = columns[-1].replace("_", " ")
    chinese = re.search(r"[\u4e00-\u9fff]", data["question"])
    nothing, single, highest, lowest, end = CHINESE if chinese else ENGLISH
    name = IN_CHINESE.get(name, name) if chinese else name
    if not rows or rows[0][-1] is None:
        text = nothing
    elif len(columns) == 1:
        text = single.format(name, rows[0][0])
    else:
        high, low = max(rows, key=lambda row: row[-1]), min(rows, key=lambda row: row[-1])
        text = highest.format(name, high[0], high[-1])
        text += lowest.format(low[0], low[-1]) if high is not low else ""
    return AIMessage(f"{text}{end}\n\n{NOTICE}")
