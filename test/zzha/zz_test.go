package zzha
import ("testing";"runtime";"fmt";"os";"strings"
"github.com/traefik/yaegi/interp"
"github.com/traefik/yaegi/stdlib")
func TestStatements(t *testing.T){
 b,_:=os.ReadFile("stmts.txt")
 for _,st:=range strings.Split(strings.TrimSpace(string(b)),"\n"){
  if st=="" {continue}
  i:=interp.New(interp.Options{}); i.Use(stdlib.Symbols)
  src:=`package p
import ("strconv";"strings";"crypto/sha256";"time";"sync";"sync/atomic";"bytes";"net/http")
var _=strconv.Itoa; var _=strings.Join; var _=sha256.Sum256; var _=time.Now; var _ sync.Mutex; var _ atomic.Int64; var _=bytes.Join; var _ http.Header
type inner struct{ n int64; mu sync.Mutex; heads []string; next *inner; ok bool; v interface{} }
type outer struct{ in *inner; list []inner; c atomic.Int64; r *http.Request; w http.ResponseWriter}
func f0(){}
func f1(a *inner) int64 {return a.n}
func f2(a,b int64) int64 {return a+b}
var started=time.Now()
func Run(n int){
 var (text=make([]byte,0,1024); s,u string; list,one []string; h=http.Header{"A":{"x"}}; b,c,d int64; i,j,k int; ok bool; p *inner; x inner; q *outer; m=map[[32]byte]*inner{}; sum [32]byte; ch=make(chan *inner,1); e interface{}; body []byte; dd time.Duration)
 list=[]string{"abc","def"}; p=&inner{n:3,heads:[]string{"x","y"}}; q=&outer{in:p, list:make([]inner,3)}; p.next=p
 q.r = &http.Request{RemoteAddr:"1.2.3.4:123",Header:h}
 s="hello world this is a string"; u="u"
 _,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_,_ = text,s,u,list,one,h,b,c,d,i,j,k,ok,p,x,q,m,sum,ch,e,body,dd,n
 for i=0;i<n;i++{
  `+st+`
 }
}`
  if _,err:=i.Eval(src);err!=nil{fmt.Printf("%-70s ERR %v\n",st,err);continue}
  v,err:=i.Eval("p.Run"); if err!=nil{t.Fatal(err)}
  run:=v.Interface().(func(int))
  run(10)
  var a,z runtime.MemStats
  runtime.ReadMemStats(&a); run(0); runtime.ReadMemStats(&z); base:=z.Mallocs-a.Mallocs
  runtime.ReadMemStats(&a); run(2000); runtime.ReadMemStats(&z)
  fmt.Printf("%-70s %6.2f\n",st,float64(z.Mallocs-a.Mallocs-base)/2000)
 }
}
