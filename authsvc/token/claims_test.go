package token

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	noon   = time.Unix(1_800_000_000, 0)
	policy = Policy{Issuer: "i", Audiences: []string{"a", "b"}, Leeway: 5 * time.Second, MaxLifetime: time.Hour}
)

// judge reads and checks claims that replace the defaults of a good token;
// "-name" leaves one out.
func judge(t *testing.T, changes ...string) error {
	t.Helper()
	claims := map[string]string{
		"iss": `"i"`, "sub": `"u1"`, "aud": `"a"`,
		"exp": fmt.Sprint(noon.Unix() + 60), "iat": fmt.Sprint(noon.Unix() - 60),
	}
	var extra []string
	for _, change := range changes {
		if name, left := strings.CutPrefix(change, "-"); left {
			delete(claims, name)
			continue
		}
		name, value, _ := strings.Cut(change, "=")
		if _, known := claims[name]; known {
			claims[name] = value
		} else {
			extra = append(extra, fmt.Sprintf("%q:%s", name, value))
		}
	}
	for name, value := range claims {
		extra = append(extra, fmt.Sprintf("%q:%s", name, value))
	}
	c, err := ParseClaims([]byte("{" + strings.Join(extra, ",") + "}"))
	if err != nil {
		return err
	}
	return policy.Check(c, "jwt", noon)
}

func TestClaims(t *testing.T) {
	at := func(name string, offset int64) string { return fmt.Sprintf("%s=%d", name, noon.Unix()+offset) }
	for _, test := range []struct {
		name    string
		changes []string
		want    error // nil: accepted
	}{
		{"good", nil, nil},
		{"exp absent", []string{"-exp"}, ErrClaims},
		{"exp 0", []string{"exp=0"}, ErrClaims},
		{"exp -0", []string{"exp=-0"}, ErrClaims},
		{"exp text", []string{`exp="4102444800"`}, ErrClaims},
		{"exp text 0", []string{`exp="0"`}, ErrClaims},
		{"exp 1e308", []string{"exp=1e308"}, ErrClaims},
		{"exp 1e999999999", []string{"exp=1e999999999"}, ErrClaims},
		{"exp -1", []string{"exp=-1"}, ErrClaims},
		{"exp null", []string{"exp=null"}, ErrClaims},
		{"exp list", []string{"exp=[4102444800]"}, ErrClaims},
		{"exp bool", []string{"exp=true"}, ErrClaims},
		{"exp tiny", []string{"exp=0.0001"}, ErrClaims},
		{"exp far", []string{at("exp", 3600), at("iat", -60)}, ErrClaims},
		{"exp far without iat", []string{at("exp", 3601), "-iat"}, ErrClaims},
		{"no iat", []string{at("exp", 3600), "-iat"}, nil},
		{"exp passed within leeway", []string{at("exp", -4)}, nil},
		{"exp passed", []string{at("exp", -5)}, ErrExpired},
		{"exp fraction", []string{fmt.Sprintf("exp=%d.5", noon.Unix()-5)}, nil},
		{"nbf later", []string{at("nbf", 6)}, ErrClaims},
		{"nbf within leeway", []string{at("nbf", 4)}, nil},
		{"nbf 0", []string{"nbf=0"}, nil},
		{"nbf -1", []string{"nbf=-1"}, ErrClaims},
		{"nbf 1e308", []string{"nbf=1e308"}, ErrClaims},
		{"nbf text", []string{`nbf="0"`}, ErrClaims},
		{"nbf null", []string{"nbf=null"}, ErrClaims},
		{"iat later", []string{at("iat", 6)}, ErrClaims},
		{"iat text", []string{`iat="1"`}, ErrClaims},
		{"iat null", []string{"iat=null"}, ErrClaims},
		{"iat 0", []string{"iat=0"}, ErrClaims}, // lives since 1970
		{"iss absent", []string{"-iss"}, ErrClaims},
		{"iss other", []string{`iss="j"`}, ErrClaims},
		{"iss case", []string{`iss="I"`}, ErrClaims},
		{"iss list", []string{`iss=["i"]`}, ErrClaims},
		{"iss null", []string{"iss=null"}, ErrClaims},
		{"aud absent", []string{"-aud"}, ErrClaims},
		{"aud other", []string{`aud="c"`}, ErrClaims},
		{"aud list", []string{`aud=["c","b"]`}, nil},
		{"aud empty list", []string{"aud=[]"}, ErrClaims},
		{"aud empty", []string{`aud=""`}, ErrClaims},
		{"aud null", []string{"aud=null"}, ErrClaims},
		{"aud number", []string{"aud=7"}, ErrClaims},
		{"aud object", []string{`aud={"a":1}`}, ErrClaims},
		{"aud nested", []string{`aud=[["a"]]`}, ErrClaims},
		{"aud mixed", []string{`aud=["a",7]`}, ErrClaims},
		// Whether sub names the user, who has to be text, the caller knows.
		{"sub number", []string{"sub=42"}, nil},
		{"sub null", []string{"sub=null"}, nil},
		{"sub in capitals as well", []string{`SUB="u2"`}, ErrClaims},
		{"sub in capitals alone", []string{"-sub", `SUB="u2"`}, ErrClaims},
		{"long s", []string{"\u017fub=\"u2\""}, ErrClaims},
		{"Kelvin sign", []string{"\u212a=1", "k=2"}, ErrClaims},
		{"jti number", []string{"jti=1"}, nil},
		// What cannot be a header matters only where it becomes one.
		{"sub non-ASCII", []string{`sub="\u00fc"`}, nil},
		{"jti long", []string{fmt.Sprintf("jti=%q", strings.Repeat("j", 64<<10))}, nil},
		{"sid list", []string{`sid=["s"]`}, nil},
		{"deep", []string{"x=" + strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)}, ErrClaims},
		{"nested duplicates", []string{`x={"a":1,"A":2}`}, ErrClaims},
		{"not so deep", []string{`x={"a":{"b":[1,{"c":null}]}}`}, nil},
	} {
		err := judge(t, test.changes...)
		if test.want == nil && err != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	for _, raw := range []string{
		"", "null", "[]", "1", `"x"`, "{", `{"exp":1}{}`, `{"exp":1} x`, "{\"exp\":1,\"x\":\"\xff\"}",
		`{"exp":1,"exp":2}`, `{"a":1,"b":2,"a":3,"exp":1}`,
	} {
		if _, err := ParseClaims([]byte(raw)); !errors.Is(err, ErrClaims) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

// Own tokens are stamped by another clock, and by that only their iat.
func TestOtherClock(t *testing.T) {
	for name, test := range map[string]struct {
		claims string
		want   error
	}{
		"iat ahead":  {fmt.Sprintf(`{"iss":"i","aud":"a","iat":%d,"exp":%d}`, noon.Unix()+600, noon.Unix()+900), nil},
		"nbf ahead":  {fmt.Sprintf(`{"iss":"i","aud":"a","nbf":%d,"exp":%d}`, noon.Unix()+600, noon.Unix()+900), ErrClaims},
		"exp passed": {fmt.Sprintf(`{"iss":"i","aud":"a","exp":%d}`, noon.Unix()-60), ErrExpired},
	} {
		c, err := ParseClaims([]byte(test.claims))
		if err != nil {
			t.Fatal(err)
		}
		p := policy
		p.OtherClock = true
		if err := p.Check(c, "jwt", noon); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// TestTypes: RFC 8725 section 3.11.
func TestTypes(t *testing.T) {
	c, err := ParseClaims(fmt.Appendf(nil, `{"iss":"i","aud":"a","sub":"u","exp":%d}`, noon.Unix()+60))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		required, typ string
		good          bool
	}{
		{"", "", true}, {"", "jwt", true}, {"", "at+jwt", true},
		{"", "logout+jwt", false}, {"", "dpop+jwt", false}, {"", "secevent+jwt", false}, {"", "jose", false},
		{"at+jwt", "at+jwt", true}, {"at+jwt", "jwt", false}, {"at+jwt", "", false},
	} {
		p := policy
		p.Type = test.required
		if err := p.Check(c, test.typ, noon); test.good != (err == nil) {
			t.Errorf("typ %q where %q is required: %v", test.typ, test.required, err)
		}
	}
}

func TestHeaderOfAClaim(t *testing.T) {
	c, err := ParseClaims([]byte(`{"long":"` + strings.Repeat("x", MaxHeaderText+1) + `","exp":1,"s":"a b","n":12,"f":1.50,"b":true,"l":["x","y"],"e":[],"z":null,
		"o":{"p":"q","r":["s"]},"o.p":"dotted","bad":"a\nb","deep":[["x"]],"blank":["a b"],"obj":{"a":1},"ü":"ü","%":"100%",
		"edge":" a ","lone":"\ud800","del":"a\u007f","list":["a b","",1],"mixed":["ü",{"a":["b c"]},null]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		claim, want string
		ok, failed  bool
		percent     string // empty: as want
	}{
		{"s", "a b", true, false, ""},
		{"n", "12", true, false, ""},
		{"f", "1.50", true, false, ""},
		{"b", "true", true, false, ""},
		{"l", "x y", true, false, ""},
		{"e", "", false, false, ""},
		{"z", "", false, false, ""},
		{"none", "", false, false, ""},
		{"o.r", "s", true, false, ""},
		{"o.p", "dotted", true, false, ""},
		{"o.p.q", "", false, false, ""},
		{"s.x", "", false, false, ""},
		{"bad", "", false, true, `a%0Ab`},
		{"deep", "", false, true, `["x"]`},
		{"blank", "", false, true, `a%20b`},
		{"obj", "", false, true, `{"a":1}`},
		{"ü", "", false, true, `%C3%BC`},
		{"long", "", false, true, ""},
		{"%", "100%", true, false, "100%25"},
		{"edge", "", false, true, "%20a%20"},
		{"lone", "", false, true, "%EF%BF%BD"},
		{"del", "", false, true, "a%7F"},
		{"list", "", false, true, ""}, // an empty element has no place between blanks
		{"mixed", "", false, true, `%C3%BC {"a":["b%20c"]} null`},
	} {
		got, ok, err := c.Header(test.claim)
		if got != test.want || ok != test.ok || test.failed != (err != nil) {
			t.Errorf("%s: %q %t %v", test.claim, got, ok, err)
		}
		if got, _, err := c.PercentHeader(test.claim); got != cmp.Or(test.percent, test.want) || err == nil && CheckHeaderText(got) != nil {
			t.Errorf("%s percent-encoded: %q %v, want %q", test.claim, got, err, cmp.Or(test.percent, test.want))
		}
	}
}

func TestScopes(t *testing.T) {
	for payload, want := range map[string]string{
		`{"exp":1,"scope":"a  b"}`: "a b", `{"exp":1,"scope":["a","b"]}`: "a b", `{"exp":1,"scp":["a"]}`: "a",
		`{"exp":1,"scp":"x","scope":"a"}`: "a", `{"exp":1}`: "", `{"exp":1,"scope":{"a":1}}`: "",
		`{"exp":1,"scope":["a b","c","",7,"ü"]}`: "c ü", `{"exp":1,"scope":""}`: "",
	} {
		c, err := ParseClaims([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Scopes(), " "); got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
}

// A name of another type is none: the user 42 is not the user "42".
func TestNamesAreText(t *testing.T) {
	c, err := ParseClaims([]byte(`{"iss":"i","sub":42,"jti":true,"sid":["s"],"exp":1}`))
	if err != nil || c.Subject != "" || c.ID != "" || c.Session != "" {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := ParseClaims([]byte(`{"iss":42,"exp":1}`)); !errors.Is(err, ErrClaims) {
		t.Errorf("an issuer that is a number: %v", err)
	}
}
