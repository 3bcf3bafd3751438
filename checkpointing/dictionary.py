"""Words that every message repeats, for zstd to refer to instead of storing them.

A message of forty characters carries two hundred bytes of field and class names. With this text
as a dictionary they cost about twenty. It is part of the storage format: a byte changed here
makes every stored body unreadable, so it never changes; a better one gets the next number.
The last words are the cheapest to refer to.
"""

FIRST = b"".join(
    (
        b"\xc7\xcc\x02\x93\xaflanggraph.types\xa9Interrupt\x83\xa5value\x82\xafaction_requests\x91",
        b"\x83\xa4name\xa4args\x80\xabdescription\xaereview_configs\x91\x82\xabaction_name",
        b"\xb1allowed_decisions\x93\xa7approve\xa4edit\xa6reject\xa2id\xd9 ",
        b"\xafresponse_schema\xc0\xc7s\x01\x93\xaflanggraph.types\xa4Send\x92\xa5tools\x83",
        b"\xa6__type\xb6tool_call_with_context\xa9tool_call\x84\xa4name\xa4args\x80\xa2id\xa5call_",
        b"\xa4type\xa9tool_call\xa5state\xc7\x8c\x05\x94\xd9 langchain_core.messages.modifier",
        b"\xadRemoveMessage\x86\xa4type\xa6remove\xc7\x89\x05\x94\xbelangchain_core.messages.system",
        b"\xadSystemMessage\x86\xa4type\xa6system\xb3model_validate_json",
        b"\xadfinish_reason\xa4stop\xaatool_calls\xaamodel_name\xaemodel_provider\xa6openai",
        b"\xabtoken_usage\x85\xb1completion_tokens\x01\xadprompt_tokens\x01\xactotal_tokens\x01",
        b"\xb9completion_tokens_details\x84\xbaaccepted_prediction_tokens\x00\xacaudio_tokens\x00",
        b"\xb0reasoning_tokens\x00\xbarejected_prediction_tokens\x00\xb5prompt_tokens_details\x82",
        b"\xacaudio_tokens\x00\xadcached_tokens\x00\xb2system_fingerprint\xc0\xa2id\xa9chatcmpl-",
        b"\xacservice_tier\xa7default\xa8logprobs\xc0",
        b"\xaeusage_metadata\x85\xacinput_tokens\xadoutput_tokens\xactotal_tokens",
        b"\xb3input_token_details\x82\xa5audio\x00\xaacache_read\x00\xb4output_token_details\x82",
        b"\xa5audio\x00\xa9reasoning\x00\xb3model_validate_json",
        b"\xc8\x01\x80\x05\x94\xbclangchain_core.messages.tool\xabToolMessage\x89\xa7content",
        b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa4tool\xa4name\xa2id\xd9$",
        b"\xactool_call_id\xbdcall_\xa8artifact\xc0\xa6status\xa7success\xb3model_validate_json",
        b"\xa4role\xa4user\xa9assistant\xa7content\x91\x82\xa4type\xa4text\xa4text",
        b"\xd9)lc_run--019\xd9*run--\xaatool_calls\x91\x84\xa4name\xa4args\x80\xa2id\xbdcall_",
        b"\xa4type\xa9tool_call\xb2invalid_tool_calls\x90\xaeusage_metadata\xc0",
        b"\x81\xa8messages\x91\xc7\x8d\x05\x94\xbdlangchain_core.messages.human\xacHumanMessage\x86",
        b"\xa7content\xd9\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa5human\xa4name",
        b"\xc0\xa2id\xd9$\xb3model_validate_json",
        b"\x91\xc8\x04\x00\x05\x94\xbalangchain_core.messages.ai\xa9AIMessage\x89\xa7content\xda\x04",
        b"\xb1additional_kwargs\x80\xb1response_metadata\x80\xa4type\xa2ai\xa4name\xc0\xa2id\xd9$",
        b"\xaatool_calls\x90\xb2invalid_tool_calls\x90\xaeusage_metadata\xc0\xb3model_validate_json",
    )
)
