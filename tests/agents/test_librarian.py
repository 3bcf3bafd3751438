"""Answers from documents, each claim with its passage, or none at all."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from langgraph.store.base import IndexConfig, ensure_embeddings
from langgraph.store.memory import InMemoryStore

from clew.checkpointing.postgres import Database
from clew.runtime import config
from clew.runtime.embedding import Embedding
from clew.runtime.store import Store
from tests.agents.fake_openai import Endpoint, Text
from tests.agents.graph_loading import TURN, Graph, open_graph, shared, user
from tests.remembering import OWNER

passages = shared("passages")

TERMS = """# Returns

Goods can be returned within 30 days of delivery. The customer pays the postage.
Faulty goods are returned free of charge, and the refund takes five working days.

# Delivery

Orders leave our warehouse in two working days. Islands take a week longer.

# Warranty

Machines have a warranty of two years. Wear parts such as grinders are not covered.
"""
CHINESE = """配送说明

订单在两个工作日内发货。偏远地区需要五天才能送达。

退货政策

商品签收后三十天内可以无理由退货。质量问题的运费由我们承担。
"""
DOCUMENTS = [{"name": "terms.md", "text": TERMS}, {"name": "说明.txt", "text": CHINESE}]


async def read(graph: Graph, *documents: dict[str, Any], **context: Any) -> str:
    state = await graph.ainvoke({"documents": list(documents)}, TURN, context=context or None)
    return state["messages"][-1].text


async def reply(graph: Graph, text: Any, **context: Any) -> Any:
    state = await graph.ainvoke(user(text), TURN, context=context or None)
    return state["messages"][-1]


def citations(message: Any) -> list[dict[str, Any]]:
    return [] if isinstance(message.content, str) else message.content[0]["annotations"]


@pytest.mark.parametrize(
    ("question", "document", "said"),
    [
        ("How many days do I have to return goods?", "terms.md", "within 30 days"),
        ("For how long can I return goods?", "terms.md", "within 30 days"),
        ("Who pays when goods are faulty?", "terms.md", "free of charge"),
        ("When do orders leave the warehouse?", "terms.md", "two working days"),
        ("Are grinders covered by the warranty?", "terms.md", "not covered"),
        ("订单多久发货？", "说明.txt", "两个工作日"),
        ("偏远地区几天送达？", "说明.txt", "五天"),
        ("签收后多久可以退货？", "说明.txt", "三十天"),
    ],
)
async def test_a_claim_cites_the_passage_that_it_was_taken_from(
    question: str, document: str, said: str
) -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    answer = await reply(librarian, question)
    texts = {d["name"]: d["text"] for d in DOCUMENTS}
    assert said in answer.text
    assert citations(answer)[0]["title"] == document
    for citation in citations(answer):
        extras = citation["extras"]
        # What is cited stands in the document, at the place that the citation names.
        cited = texts[extras["document"]][extras["start"] : extras["end"]]
        assert cited == citation["cited_text"]
        assert extras["passage"] == f"{extras['document']}#{extras['start']}-{extras['end']}"
        # And the claim, without its number, stands in what is cited.
        claim = answer.text[citation["start_index"] : citation["end_index"]]
        number = f"[{extras['number']}]"
        assert number in claim
        assert claim.partition(number)[0].strip() in cited


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "谁是总统？", "How do I bake bread?"]
)
async def test_what_the_documents_do_not_hold_is_not_answered(question: str) -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    answer = await reply(librarian, question, fallback="我不知道。")
    assert answer.text == "我不知道。"
    assert not citations(answer)


async def test_the_threshold_decides_what_is_near_enough() -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    question = "Do islands have a swimming pool?"
    assert citations(await reply(librarian, question, threshold=0.1))
    assert not citations(await reply(librarian, question, threshold=0.9))


async def test_without_documents_there_is_the_fallback() -> None:
    answer = await reply(open_graph("librarian"), "anything?")
    assert answer.text == "The documents do not answer this."


async def test_embeddings_rank_where_the_store_has_them(db: Database) -> None:
    embedded: list[str] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        # Two meanings, whatever the words: a stand-in for a model, deterministic.
        embedded.extend(texts)
        animals = ("cat", "kitten", "feline")
        return [[1.0, 0.0] if any(a in t.lower() for a in animals) else [0.0, 1.0] for t in texts]

    index: IndexConfig = {"dims": 2, "embed": embed, "fields": ["text"]}
    chosen = config.Index(dims=2, embed="openai:any", fields=("text",))
    served = Store(db, model=Embedding(ensure_embeddings(embed), chosen))
    question = "Where is my kitten?"  # shares no word with the passage
    cat, tea = {"name": "a", "text": "The cat sleeps."}, {"name": "b", "text": "Tea."}
    for store in (InMemoryStore(index=index), served.bind(OWNER)):
        librarian = open_graph("librarian", store=store)
        await read(librarian, cat, tea)
        embedded.clear()
        assert citations(await reply(librarian, question))[0]["title"] == "a"
        # Of a question without its small words a model knows less.
        assert embedded == [question]
    plain = open_graph("librarian")
    await read(plain, {"name": "a", "text": "The cat sleeps."})
    assert not citations(await reply(plain, question))


async def test_a_document_that_comes_again_takes_the_place_of_what_it_was() -> None:
    store = InMemoryStore()
    librarian = open_graph("librarian", store=store)
    await read(librarian, {"name": "terms.md", "text": TERMS})
    assert await read(librarian, {"name": "terms.md", "text": "All sales are final."}) == (
        "Read: terms.md (passages: 1)."
    )
    assert [item.value["text"] for item in store.search(("library",))] == ["All sales are final."]


async def test_a_long_document_that_comes_again_leaves_nothing_of_what_it_was() -> None:
    store = InMemoryStore()
    librarian = open_graph("librarian", store=store)
    # More passages than are read for a question.
    long = "\n\n".join(f"{n}: {'word ' * 15}." for n in range(5_100))
    await read(librarian, {"name": "a.txt", "text": long})
    assert len(store.search(("library",), limit=10_000)) == 5_100
    await read(librarian, {"name": "a.txt", "text": "Short now."})
    assert len(store.search(("library",), limit=10_000)) == 1


async def test_collections_do_not_see_each_other() -> None:
    librarian = open_graph("librarian")
    await read(librarian, {"name": "x", "text": "The code word is heron."}, collection="a.b")
    assert citations(await reply(librarian, "What is the code word?", collection="a.b"))
    assert not citations(await reply(librarian, "What is the code word?", collection="a"))


async def test_files_come_with_a_question_as_chat_front_ends_send_them() -> None:
    data = base64.b64encode("老板叫玛丽亚。".encode()).decode()
    standard = {
        "type": "file",
        "base64": data,
        "mime_type": "text/plain",
        "extras": {"filename": "boss.txt"},
    }
    of_openai = {
        "type": "file",
        "file": {"filename": "boss.txt", "file_data": f"data:text/plain;base64,{data}"},
    }
    plain = {"type": "text-plain", "text": "老板叫玛丽亚。", "mime_type": "text/plain"}
    for file in (standard, of_openai, plain):
        librarian = open_graph("librarian")
        answer = await reply(librarian, [{"type": "text", "text": "老板叫什么？"}, file])
        assert "玛丽亚" in citations(answer)[0]["cited_text"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"name": "report.pdf", "base64": ""}, "report.pdf: cannot read this type, only txt, md"),
        (
            {"name": "a", "base64": "", "mime_type": "image/png"},
            "a: cannot read image/png, only txt",
        ),
        ({"name": "a.txt", "base64": "not base64!"}, "a.txt: this is not UTF-8 text in base64"),
        (
            {"name": "a.txt", "base64": base64.b64encode("茶".encode("gb18030")).decode()},
            "a.txt: this is not UTF-8 text in base64",
        ),
        ({"name": "a.txt", "text": "  \n "}, "a.txt: there is no text in it"),
        ({"name": "a.txt", "text": "word " * 200_001}, "a.txt: longer than 1,000,000 characters"),
        ({"text": "no name"}, "Field required"),
        ({"name": "a.txt", "text": 7}, "valid string"),
    ],
)
async def test_a_bad_document_is_a_clear_error_and_nothing_is_half_done(
    document: dict[str, Any], said: str
) -> None:
    store = InMemoryStore()
    librarian = open_graph("librarian", store=store)
    with pytest.raises(ValueError, match=said):
        await read(librarian, {"name": "good.txt", "text": "Tea is served at five."}, document)
    assert store.search(("library",)) == []
    # The session goes on, and the bad document is not tried again.
    await read(librarian, {"name": "good.txt", "text": "Tea is served at five."})
    assert "at five" in (await reply(librarian, "When is tea served?")).text


async def test_two_documents_of_one_name_are_refused() -> None:
    same = {"name": "a.txt", "text": "one"}
    with pytest.raises(ValueError, match="same name"):
        await read(open_graph("librarian"), same, same)


async def test_nothing_asked_and_nothing_sent_is_a_clear_error() -> None:
    librarian = open_graph("librarian")
    for nothing in ({"messages": []}, user("  "), {"documents": []}):
        with pytest.raises(ValueError, match="Ask a question, or send documents"):
            await librarian.ainvoke(nothing, {"configurable": {"thread_id": str(nothing)}})


async def test_without_a_store_it_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="keeps documents in a store"):
        await reply(open_graph("librarian", store=None), "anything?")


async def test_documents_do_not_stay_in_the_checkpoints() -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    await reply(librarian, "Are grinders covered by the warranty?")
    states = [state async for state in librarian.aget_state_history(TURN)]
    assert len(states) > 4
    holding = [state for state in states if state.values.get("documents")]
    assert len(holding) == 1
    assert holding[0].next == ("ingest",)


async def test_html_is_read_as_the_text_that_a_reader_sees() -> None:
    librarian = open_graph("librarian")
    page = "<html><script>let x = 1</script><p>Caf&eacute; opens at <b>nine</b>.</p></html>"
    await read(librarian, {"name": "page.html", "text": page})
    cited = citations(await reply(librarian, "When does the café open?"))[0]["cited_text"]
    assert " ".join(cited.split()) == "Café opens at nine ."


async def test_a_claim_of_a_model_cites_what_it_names_and_inventions_go(
    endpoint: Endpoint,
) -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    endpoint.replies(Text("You have 30 days [1]. Faulty goods are free [1][9]. Ask us."))
    answer = await reply(librarian, "How many days do I have to return goods?")
    assert answer.text == "You have 30 days [1]. Faulty goods are free [1]. Ask us."
    spans = [answer.text[c["start_index"] : c["end_index"]].strip() for c in citations(answer)]
    assert spans == ["You have 30 days [1].", "Faulty goods are free [1]."]
    sent = endpoint.requests[0]["messages"]
    assert "within 30 days" in sent[-1]["content"]
    assert answer.id.startswith("lc_run-")


@pytest.mark.parametrize("text", ["NONE", "I simply know that it is 30 days.", "So it is [7]."])
async def test_a_model_that_cites_nothing_gives_no_answer(endpoint: Endpoint, text: str) -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    endpoint.replies(Text(text))
    answer = await reply(librarian, "How many days do I have to return goods?")
    assert answer.text == "The documents do not answer this."


async def test_reranking_puts_first_what_the_model_puts_first(endpoint: Endpoint) -> None:
    librarian = open_graph("librarian")
    three = [{"name": f"{n}.txt", "text": f"The tea costs {n} euros."} for n in (1, 2, 3)]
    await read(librarian, *three)
    endpoint.replies(Text("3, 1"), Text("It costs that [1]."))
    answer = await reply(librarian, "What does the tea cost?", rerank=True, passages=2)
    assert len(endpoint.requests) == 2
    first = endpoint.requests[0]["messages"][-1]["content"]
    assert citations(answer)[0]["cited_text"] in first
    third = first.split('"n": 3')[1]
    assert citations(answer)[0]["cited_text"] in third
    # Rubbish leaves the order as it was.
    endpoint.replies(Text("all of them, 99 and 0"), Text("It costs that [1]."))
    again = await reply(librarian, "What does the tea cost?", rerank=True)
    assert citations(again)[0]["cited_text"] in first.split('"n": 2')[0]


async def test_reranking_works_without_a_key() -> None:
    librarian = open_graph("librarian")
    await read(librarian, *DOCUMENTS)
    assert citations(await reply(librarian, "When do orders leave the warehouse?", rerank=True))


async def test_progress_is_told_while_it_happens() -> None:
    librarian = open_graph("librarian")
    given = {**user("When is tea served?"), "documents": [{"name": "a", "text": "Tea at five."}]}
    stream = librarian.astream(given, TURN, stream_mode="custom")
    events: list[Any] = [event async for event in stream]
    assert [event["stage"] for event in events] == ["read", "retrieved"]


async def test_a_large_collection_is_searched_page_by_page() -> None:
    librarian = open_graph("librarian")
    many = [{"name": f"{n}.txt", "text": f"Locker {n} belongs to number {n}."} for n in range(700)]
    many.append({"name": "needle.txt", "text": "The blue heron nests in May."})
    await read(librarian, *many)
    answer = await reply(librarian, "When does the heron nest?")
    assert citations(answer)[0]["title"] == "needle.txt"


def test_passages_hold_all_of_a_text_at_the_place_that_they_name() -> None:
    texts = [
        TERMS,
        CHINESE,
        "x" * 5_000,
        "one\n\n\n\ntwo",
        "a b. " * 800,
        " \n pad \n ",
        "茶。" * 999,
    ]
    for text in texts:
        pieces = passages.cut("d", text)
        assert "".join("".join(p["text"] for p in pieces).split()) == "".join(text.split())
        for piece in pieces:
            assert text[piece["start"] : piece["end"]] == piece["text"]
            assert 0 < len(piece["text"]) <= passages.SIZE
            assert piece["text"] == piece["text"].strip()
        assert [p["start"] for p in pieces] == sorted(p["start"] for p in pieces)


def test_keywords_are_what_a_store_is_asked_for() -> None:
    assert passages.keywords("What is the capital of France?") == "capital France"
    assert passages.keywords("请问订单多久发货？").split() == ["订单", "发货"]
    assert passages.keywords("What is it?") == "What is it?"


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("price", "prices"),
        ("invoice", "invoices"),
        ("charge", "charged"),
        ("day", "days"),
        ("tree", "trees"),
        ("box", "boxes"),
        ("address", "addresses"),
    ],
)
def test_a_word_is_found_in_its_other_forms(one: str, many: str) -> None:
    assert passages.terms(one) == passages.terms(many)


def test_a_passage_is_nearer_the_more_it_has_of_the_question() -> None:
    texts = ["tea and coffee", "tea", "water", "发货时间"]
    near = passages.relevance("Is there coffee or tea?", texts)
    assert near[0] == 1.0
    assert near[0] > near[1] > near[2] == near[3] == 0.0
    assert passages.relevance("什么时候发货", texts)[3] > 0.3
    assert passages.relevance("", texts) == [0.0] * 4
