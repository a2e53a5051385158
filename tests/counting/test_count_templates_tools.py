"""Tools as OpenAI's models read them."""

from typing import Any

import pytest

from token_callbacks.counting.templates_tools import rendered_tools


def _type(properties: dict[str, Any], **schema: Any) -> str:
    parameters = {"type": "object", "properties": properties, **schema}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    text = rendered_tools([tool], breaks_unions=True).text
    return text.removeprefix("namespace functions {\n\ntype f = (_: ").removesuffix(
        ") => any;\n\n} // namespace functions"
    )


def test_properties_without_comments_stand_in_one_line() -> None:
    """Where no property has a title, a description or a default, the object is one line."""
    assert "{ a: number, b?: string }" == _type({"a": {"type": "integer"}, "b": {"type": "string"}}, required=["a"])


def test_title_and_description_are_comments() -> None:
    """A title stands above the description, with an empty comment between them."""
    assert "{\n// T\n//\n// D\na?: string,\n}" == _type({"a": {"type": "string", "title": "T", "description": "D"}})


def test_lines_of_a_description_lose_their_indentation() -> None:
    """Every line of a description is a comment of its own without the blanks around it."""
    assert "{\n// D\n//\n// e\na?: string,\n}" == _type({"a": {"type": "string", "description": "D\n\n   e \n"}})


def test_default_is_a_comment_at_the_end() -> None:
    """A default stands behind its property."""
    assert "{\na?: boolean, // default: false\n}" == _type({"a": {"type": "boolean", "default": False}})


def test_union_breaks_its_line() -> None:
    """The alternatives of a union with a comment stand one below the other."""
    union = {"anyOf": [{"type": "string"}, {"type": "null"}], "description": "D"}

    assert "{\n// D\na?:\n| string\n| null\n,\n}" == _type({"a": union})


def test_array_of_commented_objects() -> None:
    """An array of objects of several lines is written as a generic."""
    item = {"type": "object", "properties": {"b": {"type": "string", "description": "D"}}}

    assert "{\na?: Array<\n{\n// D\nb?: string,\n}\n>,\n}" == _type({"a": {"type": "array", "items": item}})


def test_reference_is_put_in() -> None:
    """What a reference names is rendered in its place."""
    assert '{ a?: "x" | "y" }' == _type({"a": {"$ref": "#/$defs/E"}}, **{"$defs": {"E": {"enum": ["x", "y"]}}})


def test_schema_that_holds_itself_is_cut() -> None:
    """A recursive schema is rendered to some depth, and is not sure."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/N"}}}
    tool = {"name": "f", "parameters": {**node, "$defs": {"N": node}}}

    assert not rendered_tools([tool], breaks_unions=True).is_sure


def test_description_of_all_parameters_stands_above_them() -> None:
    """Behind the Responses API, as in harmony, it is a comment in front of the object; in chats none was recorded."""
    parameters = {"description": "D", "properties": {"a": {"type": "string", "description": "E"}}}
    tools = [{"name": "f", "parameters": parameters}]

    responses, chat = (rendered_tools(tools, breaks_unions=breaks_unions) for breaks_unions in (False, True))

    assert "type f = (_: // D\n{\n// E\na?: string,\n}) => any;" in responses.text
    assert (True, False) == (responses.is_sure, chat.is_sure)


def test_models_of_2023_read_no_titles() -> None:
    """A property is a line of its own there, with or without a comment, and a title is none."""
    parameters = {"type": "object", "properties": {"a": {"type": "string", "title": "T"}}}

    text = rendered_tools([{"name": "f", "parameters": parameters}], breaks_unions=True, is_older=True).text

    assert "type f = (_: {\na?: string,\n}) => any;" in text


@pytest.mark.parametrize("tool", [None, 7, {}, {"type": "web_search"}, {"name": "f", "parameters": {"properties": 3}}])
def test_odd_tools_are_no_error(tool: Any) -> None:
    """Whatever stands among the tools, there is a text."""
    assert rendered_tools([tool], breaks_unions=False).text.startswith("namespace functions {")
