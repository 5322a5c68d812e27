package attacks

// fixed is what this suite found, each a case of it or a test of the package
// since, so that it stays fixed.
var fixed = []struct{ found, class, change string }{
	{"A name with white space around it, which Go hands on over HTTP/2 though RFC 9113 section 8.2.1 forbids it, had a limit of its own per spelling: as many permits as there are spellings.", "rate limits: keys that look alike",
		"The plugin trims the value of a key's header."},
	{"Who could write to Redis and had an account rewrote his own session there, and the next refresh signed him a token for anybody.", "a writer of Redis with an account",
		"authsvc believes a session in Redis only under its own MAC, which covers session, user, claims and lifetime."},
	{"A token sent to a public route reached the user service.", "Authorization reaching a service",
		"The middleware no-credential on public routes."},
	{"A refused request with a body that is sent slowly was answered when the read timeout ended it, and held its connection until then.", "exhaustion: bodies that do not end, without a token",
		"The plugin closes the connection of a refused request with a long body, and answers at once."},
	{"In the classic wiring a request with two Authorization headers reached authsvc, which answered 400; bad-token counts 401, so that a flood of them was not limited.", "exhaustion: floods of credentials that are no token",
		"The plugin before forwardAuth refuses two credentials itself."},
	{"In the classic wiring a refusal by authsvc named the request otherwise than its header did, and authsvc's log too: nobody could have followed an attack through both.", "every class: one X-Request-ID for a request",
		"forwardAuth hands X-Request-ID on."},
	{"Requests that waited for one answer of authsvc about one bad credential were refused under the name of the one that had asked.", "every class: one X-Request-ID for a request",
		"The plugin puts each request's own name into the answer."},
	{"POST with Upgrade to a public route became a connection of the client's own to the user service, had it agreed: without a token, beyond every limit and every bound on bodies.", "advisories: an opened tunnel on a public route",
		"no-credential removes Upgrade too."},
	{"Bearer has 64 spellings, each a credential of its own to the plugin's memory. Revoking a user with 100,000 answers in it held its lock for 2.3 s, compiled, and with it every request with a new token.", "TestForgettingManyAnswersOfOneUser",
		"Forgetting one answer takes one step, however many there are of the same user."},
	{"With the key server of a foreign issuer hung, one token with a made-up kid made authsvc answer after a second for each such issuer. Gateways wait for one in all, took authsvc to be away, and refused everybody's new tokens for another second: an outage for one token each ten seconds.", "TestHungKeyServersLookLikeNoOutage",
		"authsvc waits half a second for all key servers together."},
	{"A cursor of the product service had many spellings: Go's base64 decoder skips line breaks, strict or not.", "what services take",
		"A cursor is taken only as it was given out."},
	{"White space in a query over HTTP/2 became a fourth word of the request line to the service. Go's server calls that broken and closes the connection, which Traefik reported as its own failure, 500, when the close overtook the answer; another server might take the second word for the target and the third for a version.", "HTTP/2 written as HTTP/1.1",
		"The plugin refuses it, 400."},
	{"A heartbeat was read whole however long it was: whoever can write to Redis could fill authsvc's memory with one.", "TestGatewaysAreBounded",
		"authsvc reads of a heartbeat as much as one can be, and of heartbeats as many as can be live."},
}
