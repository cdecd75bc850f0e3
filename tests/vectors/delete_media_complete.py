"""
The documented callback bodies, byte for byte.

Source: ApsaraVideo VOD, "DeleteMediaComplete": https://alibabacloud.com/help/en/vod/user-guide/deletemediacomplete
The page gives the success whole, and of the failure what differs.
"""

SUCCESS = (
    b'{"EventType":"DeleteMediaComplete","EventTime":"2017-03-20T07:49:17Z","Status":"success",'
    b'"MediaType":"video","DeleteType":"all","MediaId":"1234343b689jsi3ka5422dfe1e47****"}'
)
FAILURE = (
    b'{"EventType":"DeleteMediaComplete","EventTime":"2017-03-20T07:49:17Z","Status":"fail",'
    b'"MediaType":"video","DeleteType":"all","MediaId":"1234343b689jsi3ka5422dfe1e47****",'
    b'"ErrorCode":"InvalidVideo.NotFound","ErrorMessage":"The video does not exist."}'
)
