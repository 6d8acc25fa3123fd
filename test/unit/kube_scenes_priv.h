// SPDX-License-Identifier: BSD-3-Clause
#pragma once
// The scenes of kube_reflector_test.c, whose head explains the words.

struct scene {
	const char *name;
	const char *script;
	const char *query;
	bool is_optional;
	bool no_watch_list;
};

// A streaming list that is complete, and is the watch now.
#define SYNCED "> stream\n head 200\n body A:a:5 BE:9\n sink begin put a@5 end\n"
// A watch of its own from version 9.
#define WATCHING SYNCED "end clean\n wait 0 1000\n > watch 9\n head 200\n"
// A list of pages, and the watch.
#define LISTED                                                                                     \
	"> list\n head 200\n body L:9::a\n end clean\n sink begin put a@1 end\n > watch 9\n head " \
	"200\n"

static const struct scene scenes[] = {
	// ------------------------------------------------------------ streaming lists
	{ "streaming list, then the same stream is the watch",
		"is synced 0\n > stream\n busy 15000 15000\n head 200\n sink begin\n body A:a:5 "
		"A:b:3\n"
		"sink put a@5 put b@3\n is synced 0\n is watching 0\n body BE:9\n sink end\n is "
		"synced 1\n"
		"is watching 1\n is rv 9\n body M:a:10\n sink put a@10\n is rv 10\n body D:b:12\n "
		"sink del b\n"
		"is rv 12\n body B:20\n is rv 20\n end clean\n is watching 0\n wait 0 1000\n > "
		"watch 20\n is requests 2\n" },
	{ "the first events say nothing of the version",
		"> stream\n head 200\n body A:a:7 A:b:5 M:a:8\n is rv \n is synced 0\n" },
	{ "a bookmark without the mark ends no list",
		"> stream\n head 200\n body A:a:7 B:8\n sink begin put a@7\n is synced 0\n is rv "
		"\n body BE:9\n sink end\n is rv 9\n" },
	{ "removed while the list still comes",
		"> stream\n head 200\n body A:a:7 D:a:8 BE:9\n sink begin put a@7 del a end\n" },
	{ "a streaming list cut off starts again, and nothing was taken away",
		"> stream\n head 200\n body A:a:7\n end broken\n sink begin put a@7\n is synced "
		"0\n is trouble unreachable\n"
		"wait 800 1600\n > stream\n head 200\n body A:b:8 BE:9\n sink begin put b@8 end\n "
		"is trouble none\n" },
	{ "streaming lists that end without their bookmark: then pages",
		"> stream\n head 200\n end clean\n wait 800 1600\n > stream\n head 200\n end "
		"clean\n wait 1600 3200\n"
		"> list\n head 200\n body L:9::a\n end clean\n > watch 9\n head 410\n end clean\n "
		"wait 24000 30000\n > stream 9\n" },
	{ "a server that takes it for a watch: silent, no bookmark",
		"> stream\n head 200\n body A:a:7\n busy 10000 10000\n abandon\n is silent 1\n is "
		"synced 0\n wait 800 1600\n > list\n"
		"head 200\n body L:9::a\n end clean\n sink begin put a@7 begin put a@1 end\n > "
		"watch 9\n head 200\n body E:410:Gone\n end clean\n > list 9\n" },
	{ "a server that takes it for a watch, and is never silent",
		"> stream\n head 200\n +9000\n body A:a:7\n +9000\n body B:8\n +9000\n body B:9\n "
		"+9000\n body B:9\n +9000\n body B:9\n +9000\n body B:9\n"
		"+9000\n body B:9\n +9000\n body B:9\n +9000\n body B:9\n +9000\n body B:9\n "
		"+9000\n body B:9\n +9000\n body B:9\n +9000\n body B:9\n busy 3000 3000\n"
		"abandon\n is silent 1\n is text does not end\n wait 800 1600\n > list\n" },
	{ "422: pages at once, and again later",
		"> stream\n head 422\n body S:422:Invalid\n end clean\n is trouble server\n > "
		"list\n head 200\n body L:9::a\n end clean\n"
		"sink begin put a@1 end\n is trouble none\n > watch 9\n head 410\n end clean\n > "
		"list 9\n is lists 1\n" },
	{ "422 is forgotten after an hour",
		"> stream\n head 422\n end clean\n > list\n head 200\n body L:9::a\n end clean\n > "
		"watch 9\n head 200\n"
		"body B:10\n +3601000\n body E:410:Expired\n end clean\n > stream 10\n" },
	{ "400 is 422", "> stream\n head 400\n body ~no such parameter^\n end clean\n is text no "
			"such parameter\n > list\n" },
	{ "403 of the streaming list: pages; of these too: forbidden, and it waits",
		"> stream\n head 403\n body S:403:Forbidden\n end clean\n is trouble forbidden\n > "
		"list\n head 403\n end clean\n"
		"is trouble forbidden\n wait 800 1600\n > stream\n head 403\n end clean\n > list\n "
		"head 403\n end clean\n wait 1600 3200\n" },
	{ "401 is told apart, and waits",
		"> stream\n head 401\n body S:401:Unauthorized\n end clean\n is trouble "
		"unauthorized\n is text 401 Unauthorized: m\n"
		"wait 800 1600\n > stream\n" },
	{ "404", "> stream\n head 404\n end clean\n is trouble not-found\n is synced 0\n wait 800 "
		 "1600\n > stream\n" },
	{ "404 of an optional resource is an empty list",
		"> stream\n head 404\n body S:404:NotFound\n end clean\n sink begin end\n is "
		"synced 1\n is trouble not-found\n"
		"wait 60000 61000\n > stream\n head 404\n end clean\n sink \n wait 60000 61000\n > "
		"stream\n head 200\n body A:a:5 BE:9\n"
		"sink begin put a@5 end\n is trouble none\n",
		.is_optional = true },
	{ "404 of an optional resource that was there: what is known stays",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 404\n end clean\n sink "
			 "\n is trouble not-found\n wait 800 1600\n"
			 "> stream 9\n",
		.is_optional = true },
	{ "404 of the pages of an optional resource",
		"> list\n head 404\n end clean\n sink begin end\n is synced 1\n",
		.is_optional = true, .no_watch_list = true },
	{ "429 with Retry-After", "> stream\n head 429 5\n end clean\n is trouble throttled\n wait "
				  "5000 5000\n > stream\n" },
	{ "429 in plain text, without one",
		"> stream\n head 429 -1 text/plain\n body ~Too many requests, please try again "
		"later.^\n end clean\n is trouble throttled\n"
		"is text Too many requests\n wait 800 1600\n > stream\n" },
	{ "429 that says it in the Status",
		"> stream\n head 429\n body "
		"S:429:TooManyRequests:,'details':{'retryAfterSeconds':7}\n end clean\n is text "
		"TooManyRequests: m\n"
		"wait 7000 7000\n > stream\n head 429\n body "
		"~{'kind':'Status','details':{'retryAfterSeconds':8}}\n "
		"end clean\n wait 8000 8000\n > stream\n" },
	{ "Retry-After without end is 10 minutes",
		"> stream\n head 429 9999999999\n end clean\n wait 600000 600000\n > stream\n" },
	{ "Retry-After below zero",
		"> stream\n head 429 -9\n end clean\n wait 800 1600\n > stream\n" },
	{ "503 with Retry-After", "> stream\n head 503 9\n end clean\n is trouble server\n wait "
				  "9000 9000\n > stream\n" },
	{ "500", "> stream\n head 500\n body S:500:InternalError\n end clean\n is trouble server\n "
		 "wait 800 1600\n > stream\n" },
	{ "302", "> stream\n head 302 -1 text/html\n end clean\n is trouble server\n wait 800 "
		 "1600\n > stream\n" },
	{ "410 of the streaming list: at once without version, then pages",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 410\n end clean\n is "
			 "expired 1\n > stream 9\n head 410\n"
			 "body S:410:Expired\n end clean\n > stream\n head 410\n end clean\n wait "
			 "1600 3200\n > list\n head 200\n body L:12::b\n"
			 "end clean\n is expired 3\n sink begin put b@1 end\n > watch 12\n" },
	{ "a version that the server does not have yet: at once without",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 504\n"
			 "body "
			 "~{'kind':'Status','code':504,'reason':'Timeout','details':{'causes':[{'"
			 "reason':'ResourceVersionTooLarge'}],'retryAfterSeconds':1}}\n"
			 "end clean\n > stream\n head 200\n body A:b:3 BE:4\n sink begin put b@3 "
			 "end\n is rv 4\n is older 1\n" },
	{ "ERROR in the streaming list: 410",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 200\n body A:a:5 "
			 "E:410:Expired\n abandon\n > stream\n"
			 "head 200\n body BE:11\n sink begin put a@5 begin end\n" },
	{ "ERROR in the streaming list: 500",
		"> stream\n head 200\n body E:500:InternalError\n abandon\n is trouble server\n"
		"wait 800 1600\n > stream\n" },
	{ "ERROR in the streaming list: 429",
		"> stream\n head 200\n body "
		"E:429:TooManyRequests:,'details':{'retryAfterSeconds':4}\n end clean\n is frames "
		"0\n wait 4000 4000\n > stream\n" },
	{ "garbage in the streaming list: it starts again",
		"> stream\n head 200\n body A:a:5\n body ~garbage^\n abandon\n sink begin put "
		"a@5 bad ?\n is frames 1\n is trouble garbage\n"
		"is synced 0\n wait 800 1600\n > stream\n" },
	{ "a bad object in the streaming list: refused alone, and counts as seen",
		"> stream\n head 200\n body "
		"~{'type':'ADDED','object':{'kind':'Thing','metadata':{'name':'x','namespace':'d',"
		"'resourceVersion':'4'},'spec':1e999999}}^\n body A:a:5 BE:9\n sink begin bad x "
		"put a@5 end\n is synced 1\n is bad 1\n" },
	{ "an older streaming list than asked for",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 200\n body BE:8\n "
			 "abandon\n sink begin\n is trouble garbage\n"
			 "is older 1\n wait 800 1600\n > stream\n" },

	// ------------------------------------------------------------ pages
	{ "one page",
		LISTED "is synced 1\n is rv 9\n is objects 1\n is lists 1\n is complete 1\n is "
		       "watching 1\n",
		.no_watch_list = true },
	{ "three pages, one list, the first one's version",
		"> list\n head 200\n body L:9:t1:a,b\n is synced 0\n end clean\n > page t1\n head "
		"200\n body L:10:t2:c\n end clean\n > page t2\n"
		"head 200\n body L:11::d\n sink begin put a@1 put b@1 put c@1 put d@1 end\n is rv "
		"9\n end clean\n > watch 9\n is lists 1\n",
		.no_watch_list = true },
	{ "no items", "> list\n head 200\n body L:9::\n sink begin end\n is synced 1\n",
		.no_watch_list = true },
	{ "items null",
		"> list\n head 200\n body "
		"~{'kind':'ThingList','metadata':{'resourceVersion':'9'},'items':null}\n sink "
		"begin end\n",
		.no_watch_list = true },
	{ "a plain List, metadata behind the items",
		"> list\n head 200\n body "
		"~{'items':[{'metadata':{'name':'a','resourceVersion':'2'}}],'kind':'List','"
		"metadata':{'resourceVersion':'9'}}\n"
		"sink begin put /a@2 end\n is rv 9\n",
		.no_watch_list = true },
	{ "a token is encoded",
		"> list\n head 200\n body L:9:a+/=&b:x\n end clean\n > page a%2B%2F%3D%26b\n",
		.no_watch_list = true },
	{ "a page that points at itself",
		"> list\n head 200\n body L:9:t1:a\n end clean\n > page t1\n head 200\n body "
		"L:9:t1:b\n end clean\n is text the same page again\n sink begin put a@1 put b@1\n"
		"is synced 0\n wait 800 1600\n > list\n head 200\n body L:9:t1:a\n end clean\n > "
		"page t1\n head 200\n body L:9::\n sink begin put a@1 end\n",
		.no_watch_list = true },
	{ "410 of a page: all at once, from the start",
		"> list\n head 200\n body L:9:t1:a\n end clean\n > page t1\n head 410\n body "
		"S:410:Expired:,'metadata':{'continue':'t9'}\n"
		"end clean\n > full\n head 200\n body L:12::a,b\n end clean\n sink begin put a@1 "
		"begin put a@1 put b@1 end\n is rv 12\n > watch 12\n",
		.no_watch_list = true },
	{ "410 of the one without pages: from the start",
		"> list\n head 200\n body L:9:t1:a\n end clean\n > page t1\n head 410\n end "
		"clean\n > full\n head 410\n end clean\n wait 800 1600\n"
		"> list\n",
		.no_watch_list = true },
	{ "429 of a page: the same page",
		"> list\n head 200\n body L:9:t1:a\n end clean\n > page t1\n head 429 2\n end "
		"clean\n wait 2000 2000\n > page t1\n head 200\n"
		"body L:9::b\n sink begin put a@1 put b@1 end\n",
		.no_watch_list = true },
	{ "a page that breaks: from the start, with what the budget has",
		"> list\n head 200\n body L:9:t1:a\n end clean\n > page t1\n end broken\n is "
		"trouble unreachable\n sink begin put a@1\n"
		"wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "after 410 a list not older than the last",
		LISTED "head 200\n body E:410:Expired\n end clean\n > list 9\n head 200\n body "
		       "L:15::b\n end clean\n sink begin put b@1 end\n > watch 15\n",
		.no_watch_list = true },
	{ "410 of that: without version",
		LISTED "body E:410:Expired\n end clean\n > list 9\n head 410\n end clean\n > "
		       "list\n head 200\n body L:15::b\n sink begin put b@1 end\n",
		.no_watch_list = true },
	{ "410 even without version: it waits",
		"> list\n head 410\n end clean\n wait 800 1600\n > list\n head 410\n end clean\n "
		"wait 1600 3200\n",
		.no_watch_list = true },
	{ "504 ResourceVersionTooLarge of that: without version",
		LISTED "body E:410:Expired\n end clean\n > list 9\n head 504 1\n"
		       "body "
		       "~{'code':504,'details':{'causes':[{'message':'x'},{'reason':'"
		       "ResourceVersionTooLarge'}]}}\n end clean\n > list\n",
		.no_watch_list = true },
	{ "504 for another reason",
		"> list\n head 504\n body S:504:Timeout\n end clean\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "an older list than asked for is seen before its first item",
		LISTED
		"body E:410:Expired\n end clean\n > list 9\n head 200\n body L:8::b\n abandon\n "
		"sink begin\n is rv 9\n is older 1\n wait 800 1600\n"
		"> list\n head 200\n body L:8::b\n sink begin put b@1 end\n is rv 8\n is older 2\n",
		.no_watch_list = true },
	{ "items that are bad are refused alone, and count as seen",
		"> list\n head 200\n body L:9::a,!x,b,+y\n sink begin put a@1 bad x put b@1 bad /y "
		"end\n is bad 2\n is synced 1\n",
		.no_watch_list = true },
	{ "an item without a name: nothing may be taken away",
		"> list\n head 200\n body L:9::a,?,b\n end clean\n sink begin put a@1 bad ? put "
		"b@1\n is synced 0\n is trouble garbage\n wait 800 1600\n"
		"> list\n head 200\n body L:9::a\n sink begin put a@1 end\n",
		.no_watch_list = true },
	{ "a list of another kind is seen before its first item",
		"> list\n head 200\n body "
		"~{'kind':'PodList','metadata':{'resourceVersion':'9'},'items':[{'metadata':{'name'"
		":'a','resourceVersion':'1'}}]}\n"
		"end clean\n sink begin\n is trouble garbage\n is text of another kind\n wait 800 "
		"1600\n > list\n",
		.no_watch_list = true },
	{ "an empty list of another kind",
		"> list\n head 200\n body "
		"~{'kind':'PodList','metadata':{'resourceVersion':'9'},'items':[]}\n"
		"end clean\n sink begin\n is synced 0\n wait 800 1600\n",
		.no_watch_list = true },
	{ "a Status with code 200",
		"> list\n head 200\n body S:500:InternalError\n end clean\n sink begin\n is synced "
		"0\n is trouble garbage\n wait 800 1600\n",
		.no_watch_list = true },
	{ "HTML with code 200",
		"> list\n head 200 -1 text/html\n body ~<html>\n is trouble garbage\n is text "
		"text/html\n abandon\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "HTML that says it is JSON",
		"> list\n head 200\n body ~<html>\n end clean\n is trouble garbage\n is synced 0\n "
		"sink begin\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "JSON with a character set",
		"> list\n head 200 -1 application/json;charset=utf-8\n body L:9::a\n sink begin "
		"put a@1 end\n",
		.no_watch_list = true },
	{ "a list cut off cleanly",
		"> list\n head 200\n body "
		"~{'kind':'ThingList','metadata':{'resourceVersion':'9'},'items':[\n end clean\n "
		"is synced 0\n sink begin\n"
		"is trouble server\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "a list without a kind, items without a version",
		"> list\n head 200\n body "
		"~{'metadata':{'resourceVersion':'9'},'items':[{'metadata':{'name':'a'}}]}\n end "
		"clean\n sink begin put /a end\n > watch 9\n",
		.no_watch_list = true },
	{ "a list without version",
		"> list\n head 200\n body ~{'kind':'ThingList','metadata':{},'items':[]}\n end "
		"clean\n is synced 0\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "a list with its version twice",
		"> list\n head 200\n body "
		"~{'kind':'ThingList','metadata':{'resourceVersion':'9','resourceVersion':'8'},'"
		"items':[]}\n end clean\n is synced 0\n"
		"is trouble garbage\n wait 800 1600\n",
		.no_watch_list = true },
	{ "items twice",
		"> list\n head 200\n body "
		"~{'kind':'ThingList','metadata':{'resourceVersion':'9'},'items':[],'items':[]}\n "
		"end clean\n is synced 0\n",
		.no_watch_list = true },
	{ "a silent list",
		"> list\n head 200\n +10000\n body ~{\n busy 30000 30000\n abandon\n is silent 1\n "
		"wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "a list that dribbles",
		"> list\n head 200\n +29000\n body ~{\n +29000\n body ~'\n +29000\n body ~a\n "
		"+29000\n body ~b\n +4000\n abandon\n is silent 1\n"
		"is text does not end\n wait 800 1600\n > list\n",
		.no_watch_list = true },
	{ "a list that is complete and does not end is taken",
		"> list\n head 200\n body L:9::a\n is synced 1\n busy 30000 30000\n abandon\n is "
		"silent 0\n > watch 9\n",
		.no_watch_list = true },
	{ "an error that does not end",
		"> list\n head 500\n body ~x\n busy 30000 30000\n abandon\n wait 800 1600\n > "
		"list\n",
		.no_watch_list = true },

	// ------------------------------------------------------------ watches
	{ "a watch that ends where it should: again at once",
		WATCHING "+599500\n body B:12\n end clean\n > watch 12\n is lists 1\n is watches "
			 "1\n is trouble none\n" },
	{ "a watch that was closed early: within a second",
		WATCHING "+100000\n end clean\n wait 0 1000\n > watch 9\n is trouble none\n" },
	{ "a watch that ends at once: as an error",
		WATCHING "+999\n end clean\n is trouble server\n wait 800 1600\n > watch 9\n head "
			 "200\n end clean\n wait 1600 3200\n > watch 9\n is lists 1\n" },
	{ "at once, but with an event",
		WATCHING "body M:a:10\n end clean\n wait 0 1000\n > watch 10\n is trouble none\n" },
	{ "connection refused: the same watch, 0.8 s doubled to 30 s, never a list", WATCHING
		"end broken\n is trouble unreachable\n wait 800 1600\n > watch 9\n end refused\n "
		"wait 1600 3200\n > watch 9\n end refused\n wait 3200 6400\n"
		"> watch 9\n end timeout\n wait 6400 12800\n > watch 9\n end broken\n wait 12800 "
		"25600\n > watch 9\n end refused\n wait 25600 51200\n > watch 9\n"
		"end refused\n wait 30000 60000\n > watch 9\n end refused\n wait 30000 60000\n > "
		"watch 9\n head 200\n body M:a:10\n is trouble none\n is lists 1\n"
		"sink put a@10\n" },
	{ "two quiet minutes make the wait short again",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n end refused\n wait 1600 3200\n "
			 "> watch 9\n head 200\n +121000\n body M:a:10\n end broken\n"
			 "wait 0 1000\n > watch 10\n end broken\n wait 800 1600\n" },
	{ "less than that do not",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n end refused\n wait 1600 3200\n "
			 "> watch 9\n head 200\n +118000\n body M:a:10\n end broken\n"
			 "wait 0 1000\n > watch 10\n end broken\n wait 3200 6400\n" },
	{ "broken again and again, each time after an event: no backoff grows",
		WATCHING "body M:a:10\n end broken\n wait 0 1000\n > watch 10\n head 200\n body "
			 "M:a:11\n end broken\n wait 0 1000\n > watch 11\n head 200\n body "
			 "M:a:12\n end broken\n wait 0 1000\n > watch 12\n is lists 1\n" },
	{ "broken again and again, each time after a second",
		WATCHING "+1000\n end broken\n wait 0 1000\n > watch 9\n head 200\n +1000\n end "
			 "broken\n wait 0 1000\n > watch 9\n head 200\n +999\n end broken\n "
			 "wait 800 1600\n > watch 9\n is trouble unreachable\n" },
	{ "a new token ends the wait, not a Retry-After",
		WATCHING "end broken\n wake\n > watch 9\n head 429 6\n end clean\n wake\n wait "
			 "6000 6000\n > watch 9\n" },
	{ "a new token makes the waits short again",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n end refused\n wait 1600 3200\n "
			 "> watch 9\n end refused\n wake\n > watch 9\n end refused\n wait 800 "
			 "1600\n > watch 9\n" },
	{ "429 of a watch: the same watch",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 429 2\n end clean\n wait "
			 "2000 3200\n > watch 9\n is lists 1\n" },
	{ "410 of a watch: a list not older than the last", WATCHING
		"end broken\n wait 800 1600\n > watch 9\n head 410\n body S:410:Expired\n end "
		"clean\n "
		"is expired 1\n"
		"> stream 9\n head 200\n body A:b:8 BE:15\n sink begin put b@8 end\n is rv 15\n" },
	{ "ERROR 410", WATCHING "body M:a:10 E:410:Expired M:a:11\n sink put a@10\n abandon\n is "
				"expired 1\n > stream 10\n" },
	{ "ERROR Expired without code",
		WATCHING "body ~{'type':'ERROR','object':{'kind':'Status','reason':'Expired'}}^\n "
			 "end clean\n > stream 9\n is expired 1\n" },
	{ "ERROR 429", WATCHING "body E:429:TooManyRequests\n end clean\n is trouble throttled\n "
				"wait 800 1600\n > watch 9\n" },
	{ "ERROR 500", WATCHING "body E:500:InternalError\n end clean\n is trouble server\n is "
				"text 500 InternalError\n wait 800 1600\n > stream 9\n" },
	{ "ERROR of nothing", WATCHING
		"body ~{'type':'ERROR','object':{}}^\n end clean\n wait 800 1600\n > stream 9\n" },
	{ "silent for 3 minutes: a new watch, never a list", WATCHING
		"+60000\n body B:10\n busy 180000 180000\n abandon\n is silent 1\n is trouble "
		"unreachable\n is text silent for 180 s\n wait 0 1000\n > watch 10\n"
		"is lists 1\n" },
	{ "bytes that are no event are bytes",
		WATCHING "+170000\n body ~^\n busy 180000 180000\n abandon\n" },
	{ "no answer for 15 s",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n busy 15000 15000\n abandon\n is "
			 "silent 1\n is text no answer for 15 s\n wait 1600 3200\n > watch 9\n" },
	{ "no answer to the first question",
		"> stream\n busy 15000 15000\n abandon\n wait 800 1600\n > stream\n is lists 0\n" },
	{ "a watch over its time is given up, without trouble", WATCHING
		"+170000\n body B:10\n +170000\n body B:11\n +170000\n body B:12\n +121000\n "
		"abandon\n is trouble none\n is silent 0\n wait 0 1000\n > watch 12\n" },
	{ "the end in the middle of an event: it comes again",
		WATCHING "body M:a:10\n body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'b'\n "
			 "end clean\n sink put a@10\n"
			 "is trouble unreachable\n is text middle of an event\n wait 0 1000\n > "
			 "watch 10\n" },
	{ "503 three times: then a list",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 503\n end clean\n wait "
			 "1600 3200\n > watch 9\n head 503\n end clean\n"
			 "wait 3200 6400\n > watch 9\n head 503\n end clean\n wait 6400 12800\n > "
			 "stream 9\n" },
	{ "a server that was restored from an older copy",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 504\n body "
			 "S:504:Timeout:,'details':{'causes':[{'reason':'ResourceVersionTooLarge'}]"
			 "}\n end clean\n wait 1600 3200\n > watch 9\n head 504\n body "
			 "S:504:Timeout:,'details':{'causes':[{'reason':'ResourceVersionTooLarge'}]"
			 "}\n end clean\n wait 3200 6400\n > watch 9\n head 504\n body "
			 "S:504:Timeout:,'details':{'causes':[{'reason':'ResourceVersionTooLarge'}]"
			 "}\n end clean\n wait 6400 12800\n > stream 9\n head 504\n body "
			 "S:504:Timeout:,'details':{'causes':[{'reason':'ResourceVersionTooLarge'}]"
			 "}\n end clean\n"
			 "> stream\n head 200\n body A:b:3 BE:4\n sink begin put b@3 end\n is rv "
			 "4\n is older 1\n" },
	{ "503 twice, a good one, twice: no list", WATCHING
		"end broken\n wait 800 1600\n > watch 9\n head 503\n end clean\n wait 1600 3200\n "
		"> watch 9\n head 503\n end clean\n"
		"wait 3200 6400\n > watch 9\n head 200\n body B:10\n end broken\n wait 0 "
		"1000\n > watch 10\n head 503\n end clean\n wait 6400 12800\n > watch 10\n"
		"head 503\n end clean\n wait 12800 25600\n > watch 10\n" },
	{ "401 thrice: no list helps",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 401\n end clean\n is "
			 "trouble unauthorized\n wait 1600 3200\n > watch 9\n head 401\n"
			 "end clean\n wait 3200 6400\n > watch 9\n head 401\n end clean\n wait "
			 "6400 12800\n > watch 9\n" },
	{ "403 of the watch alone: now and then a list",
		"> list\n head 200\n body L:9::a\n end clean\n > watch 9\n head 403\n end clean\n "
		"is trouble forbidden\n is synced 1\n"
		"wait 800 1600\n > watch 9\n head 403\n end clean\n wait 1600 3200\n > watch 9\n "
		"head 403\n end clean\n wait 3200 6400\n > list 9\n",
		.no_watch_list = true },
	{ "400 of a watch: a list", WATCHING "end broken\n wait 800 1600\n > watch 9\n head 400\n "
					     "end clean\n wait 1600 3200\n > stream 9\n" },
	{ "404 of a watch",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 404\n end clean\n is "
			 "trouble not-found\n sink \n wait 1600 3200\n > watch 9\n" },
	{ "HTML on a watch",
		WATCHING "end broken\n wait 800 1600\n > watch 9\n head 200 -1 text/html\n "
			 "abandon\n is trouble garbage\n wait 1600 3200\n > watch 9\n" },
	{ "the version never goes back", WATCHING "body M:a:12 M:b:10 B:11\n is rv 12\n sink put "
						  "a@12 put b@10\n body M:a:100\n is rv 100\n" },
	{ "versions that are no numbers",
		"> stream\n head 200\n body BE:zz\n is rv zz\n body M:a:ab\n is rv ab\n end "
		"clean\n wait 0 1000\n > watch ab\n" },
	{ "a version is encoded", "> stream\n head 200\n body BE:a&b=%\n end clean\n wait 0 1000\n "
				  "> watch a%26b%3D%25\n" },
	{ "a watch that lives for a second is no trouble", WATCHING
		"end broken\n is trouble unreachable\n wait 800 1600\n > watch 9\n head 200\n is "
		"trouble unreachable\n"
		"busy 1000 1000\n busy 179000 180000\n is trouble none\n is text broken\n" },

	// ------------------------------------------------------------ events that are not as they should be
	{ "unknown types are skipped",
		WATCHING "body ~{'type':'FUNNY','object':{}}^\n body M:a:10\n sink put a@10\n is "
			 "skipped 1\n is rv 10\n" },
	{ "other kinds are skipped",
		WATCHING "body "
			 "~{'type':'ADDED','object':{'kind':'Pod','metadata':{'name':'a','"
			 "namespace':'d','resourceVersion':'99'}}}^\n"
			 "sink \n is skipped 1\n is rv 9\n" },
	{ "bookmarks of other kinds too",
		WATCHING "body "
			 "~{'type':'BOOKMARK','object':{'kind':'Pod','metadata':{'resourceVersion':"
			 "'99'}}}^\n is rv 9\n is skipped 1\n" },
	{ "a bad object of another kind",
		WATCHING "body "
			 "~{'type':'ADDED','object':{'kind':'Pod','metadata':{'name':'a','"
			 "namespace':'d','resourceVersion':'99'},'a':1,'a':1}}^\n"
			 "sink \n is skipped 1\n is rv 9\n" },
	{ "a key twice: refused alone, the watch goes on behind it", WATCHING
		"body "
		"~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','namespace':'"
		"d','resourceVersion':'10'},'a':1,'a':1}}^\n"
		"sink bad x\n is rv 10\n is bad 1\n is frames 0\n body M:a:11\n sink put a@11\n" },
	{ "a key twice in what was deleted: it is gone",
		WATCHING "body "
			 "~{'type':'DELETED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':'10'},'a':1,'a':1}}^\n"
			 "sink del x\n is rv 10\n" },
	{ "a name twice: nobody's",
		WATCHING "body "
			 "~{'type':'DELETED','object':{'kind':'Thing','metadata':{'name':'x','name'"
			 ":'y','namespace':'d','resourceVersion':'10'}}}^\n"
			 "sink bad ?\n is rv 9\n is frames 1\n" },
	{ "metadata twice: nobody's",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "resourceVersion':'10'},'metadata':{}}}^\n"
			 "sink bad ?\n is rv 9\n is frames 1\n" },
	{ "NUL in a string",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':'10'},'a':'\\u0000'}}^\n"
			 "sink bad x\n is rv 10\n" },
	{ "a name with NUL",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'"
			 "x\\u0000','namespace':'d','resourceVersion':'10'}}}^\n"
			 "sink bad ?\n is rv 9\n" },
	{ "an integer out of range",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':'10'},"
			 "'a':99999999999999999999}}^\n sink bad x\n is rv 10\n" },
	{ "bytes that are no UTF-8",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':'10'},"
			 "'a':'\xff\xfe'}}^\n sink bad x\n is rv 10\n" },
	{ "no version: taken, and the watch's version stays",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d'}}}^\n sink put x\n is rv 9\n is frames 0\n" },
	{ "a version that is a number",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':10}}}^\n"
			 "sink bad x\n is rv 9\n is frames 1\n" },
	{ "a namespace that is a number",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':7,'resourceVersion':'10'}}}^\n"
			 "sink bad /x\n is rv 10\n" },
	{ "an object that is a number",
		WATCHING "body ~{'type':'MODIFIED','object':7}^\n sink bad ?\n is frames 1\n" },
	{ "no type", WATCHING "body "
			      "~{'object':{'kind':'Thing','metadata':{'name':'x','namespace':'d','"
			      "resourceVersion':'10'}}}^\n sink bad x\n is frames 1\n is rv 9\n" },
	{ "an array", WATCHING "body ~[1]^\n sink bad ?\n is frames 1\n" },
	{ "a bookmark without version",
		WATCHING "body ~{'type':'BOOKMARK','object':{'kind':'Thing','metadata':{}}}^\n is "
			 "frames 1\n is rv 9\n" },
	{ "a lost frame holds the version back; 10 s later it comes again",
		WATCHING "body M:a:10\n body ~garbage^\n body M:b:12 B:13\n sink put a@10 bad ? "
			 "put b@12\n is rv 10\n is trouble garbage\n busy 10000 10000\n abandon\n"
			 "> watch 10\n head 200\n body M:c:11 M:b:12\n sink put c@11 put b@12\n is "
			 "rv 12\n is trouble none\n is lists 1\n" },
	{ "a cut-off event is told by name",
		WATCHING "body "
			 "~{'type':'MODIFIED','object':{'kind':'Thing','metadata':{'name':'x','"
			 "namespace':'d','resourceVersion':'10'},^\n"
			 "body M:a:11\n sink bad x put a@11\n is rv 9\n is frames 1\n" },
	{ "three lost frames: a list", WATCHING
		"body ~a^\n body ~b^\n body M:a:10\n body ~c^\n sink bad ? bad ? put a@10 "
		"bad ?\n abandon\n > stream 9\n head 200\n"
		"body A:b:11 BE:12\n sink begin put b@11 end\n is rv 12\n is trouble "
		"none\n is frames 3\n body ~d^\n busy 10000 10000\n abandon\n > watch 12\n" },
	{ "lost frames over several watches are added up",
		WATCHING "body ~a^\n body ~b^\n +10000\n abandon\n > watch 9\n head 200\n body "
			 "~c^\n abandon\n > stream 9\n" },
	{ "three lost frames while the budget is empty: the watch goes on meanwhile",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 200\n body BE:9\n body "
			 "E:410:Gone\n end clean\n > stream 9\n head 200\n body BE:9\n sink begin "
			 "end begin end\n"
			 "body ~a^\n body ~b^\n body ~c^\n body M:a:10\n sink bad ? bad ? bad ? "
			 "put a@10\n busy 28000 30000\n abandon\n > stream 9\n" },

	// ------------------------------------------------------------ the budget of lists
	{ "three lists at once, then one in 30 s", WATCHING
		"body E:410:Gone\n end clean\n > stream 9\n head 200\n body BE:10 E:410:Gone\n end "
		"clean\n > stream 10\n head 200\n body BE:11 E:410:Gone\n end clean\n"
		"wait 28000 30000\n > stream 11\n head 200\n body BE:12 E:410:Gone\n end clean\n "
		"wait 29900 30000\n > stream 12\n is lists 4\n" },
	{ "a minute brings two",
		WATCHING "body E:410:Gone\n end clean\n > stream 9\n head 200\n body BE:10 "
			 "E:410:Gone\n end clean\n > stream 10\n head 200\n body BE:11\n +60000\n"
			 "body E:410:Gone\n end clean\n > stream 11\n head 200\n body BE:12 "
			 "E:410:Gone\n end clean\n > stream 12\n head 200\n body BE:13 "
			 "E:410:Gone\n end clean\n wait 27000 30000\n" },
	{ "an hour brings no more than three",
		WATCHING "+150000\n body B:10\n +3600000\n body E:410:Gone\n end clean\n > stream "
			 "10\n head 200\n body BE:10 E:410:Gone\n end clean\n"
			 "> stream 10\n head 200\n body BE:10 E:410:Gone\n end clean\n > stream "
			 "10\n head 200\n body BE:10 E:410:Gone\n end clean\n wait 30000 30000\n" },
	{ "what never got an answer is no list",
		"> stream\n end refused\n wait 800 1600\n > stream\n end refused\n wait 1600 "
		"3200\n > stream\n end refused\n wait 3200 6400\n > stream\n end refused\n wait "
		"6400 12800\n"
		"> stream\n end refused\n wait 12800 25600\n > stream\n head 200\n body BE:9\n is "
		"lists 1\n" },
	{ "410 for watch and streaming list, for ever: only pages are lists",
		"> list\n head 200\n body L:9::a\n end clean\n > watch 9\n head 410\n end clean\n "
		"> list 9\n head 200\n body L:9::a\n end clean\n > watch 9\n head 410\n end clean\n"
		"> list 9\n head 200\n body L:9::a\n end clean\n > watch 9\n head 410\n end "
		"clean\n wait 30000 30000\n > list 9\n head 200\n body L:9::a\n end clean\n > "
		"watch 9\n"
		"head 410\n end clean\n wait 30000 30000\n is lists 4\n",
		.no_watch_list = true },

	// ------------------------------------------------------------ the caller
	{ "selectors stand in every question",
		"> stream\n head 422\n end clean\n > list\n head 200\n body L:9:t:a\n end clean\n "
		"> page t\n head 410\n end clean\n > full\n head 200\n body L:9::a\n end clean\n > "
		"watch 9\n",
		.query = "labelSelector=a%3Db" },
	{ "what comes unasked is not looked at",
		"head 200\n body BE:9\n end clean\n is synced 0\n sink \n > stream\n head 200\n "
		"body E:500:x\n body BE:9\n is synced 0\n abandon\n body BE:9\n end clean\n"
		"is synced 0\n wait 800 1600\n > stream\n" },
	{ "a second head is not looked at", "> stream\n head 200\n head 500\n head 200\n sink "
					    "begin\n body BE:9\n is synced 1\n is lists 1\n" },
	{ "the end of a request whose outcome is settled",
		"> stream\n head 200\n body E:500:x\n end clean\n wait 800 1600\n > stream\n" },
	{ "an empty piece is no sign of life",
		WATCHING "+100000\n body ~\n busy 80000 80000\n abandon\n" },
};
