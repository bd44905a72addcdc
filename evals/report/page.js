(function(){
var box=document.getElementById('find'),kind=document.getElementById('kind'),told=document.getElementById('told');
var cases=Array.prototype.slice.call(document.querySelectorAll('details.case'));
var texts=cases.map(function(c){return c.textContent.toLowerCase();});
function apply(){
  var words=box.value.toLowerCase().split(/\s+/).filter(Boolean),shown=0;
  cases.forEach(function(c,i){
    var fits=(!kind.value||c.dataset.kind===kind.value)&&words.every(function(w){return texts[i].indexOf(w)>=0;});
    c.hidden=!fits;shown+=fits?1:0;
  });
  told.textContent=shown+' of '+cases.length+' shown';
}
if(box){box.addEventListener('input',apply);kind.addEventListener('change',apply);apply();
document.addEventListener('keydown',function(e){
  if(e.key==='/'&&document.activeElement!==box&&!e.ctrlKey&&!e.metaKey){e.preventDefault();box.focus();}
  if(e.key==='Escape'&&document.activeElement===box){box.value='';apply();}
});}
window.addEventListener('beforeprint',function(){cases.forEach(function(c){c.open=!c.hidden;});});
})();
