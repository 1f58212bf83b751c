package org.snu.ids.ha.ma;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Limits the work for a token and for a document. It counts work and never uses the clock.
 *
 * <p>The unit is a pair of candidates to be joined (about 0.1 us). A token may spend TOKEN + TOKEN_CHARACTER x length,
 * and a join may score SCORED and keep KEPT candidates. A token over its limit becomes one morpheme of unknown kind,
 * like a word that Kkma does not know. So does the same token later in the document. Every token has a free part of
 * FREE + FREE_CHARACTER x length. What it spends beyond that comes from the document's pool of POOL +
 * POOL_CHARACTER x length. When the pool is empty, the free part is the limit. One budget serves a whole document,
 * even if it is analyzed in parts.
 */
public final class Budget {
    static final int SCORED = 8000;
    static final int KEPT = 2000;
    static final int LONGEST = 20000;
    private static final long TOKEN = 1000000;
    private static final long TOKEN_CHARACTER = 1000;
    private static final long POOL = 4000000;
    private static final long POOL_CHARACTER = 200;
    private static final long FREE = 20000;
    private static final long FREE_CHARACTER = 500;
    private static final long JOIN = 200000;

    private static final ThreadLocal<Budget> CURRENT = new ThreadLocal<Budget>();
    private static final Exceeded EXCEEDED = new Exceeded();

    final Derivation scores = new Derivation();
    final Context context = new Context();
    private final Analyses analyses = new Analyses();
    private final Map<MCandidate, Head> heads = new IdentityHashMap<MCandidate, Head>();
    private final Set<String> stopped = new HashSet<String>();
    private long pool;
    private long left;
    private boolean inToken;
    int tokens;
    int characters;

    private static final class Exceeded extends RuntimeException {
        private static final long serialVersionUID = 1;

        Exceeded() {
            super("budget exceeded", null, false, false);
        }
    }

    /** For a document of this many UTF-16 units. */
    public Budget(int length) {
        pool = POOL + POOL_CHARACTER * length;
    }

    /** Begins a part of the document in this thread. `tokens` and `characters` count from zero. */
    void open() {
        tokens = 0;
        characters = 0;
        CURRENT.set(this);
    }

    static void close() {
        CURRENT.remove();
    }

    static Budget current() {
        return CURRENT.get();
    }

    /** Replaces MorphemeAnalyzer.analyze of one token, within the limits. */
    static List<MExpression> analyze(MorphemeAnalyzer analyzer, MExpression before, Token token)
            throws Exception {
        if (!token.isCharSetOf(CharSetType.HANGUL)) {
            return analyzer.analyze(before, token);
        }
        Budget budget = CURRENT.get();
        int length = token.string.length();
        long free = FREE + FREE_CHARACTER * length;
        long limit = Math.max(free, Math.min(TOKEN + TOKEN_CHARACTER * length, budget.pool));
        if (length <= LONGEST && !budget.stopped.contains(token.string)) {
            budget.context.open(before);
            List<MExpression> known = Analyses.find(token, budget.context);
            if (known != null) {
                return known;
            }
            budget.left = limit;
            budget.inToken = true;
            try {
                List<MExpression> found = analyzer.analyze(before, token);
                if (limit - budget.left <= free) { // known or not, it leaves the pool as it is
                    budget.analyses.add(token, budget.context, found);
                }
                return found;
            } catch (Exceeded exceeded) {
                budget.stopped.add(token.string);
            } finally {
                budget.inToken = false;
                budget.heads.clear();
                budget.pool -= Math.max(0, limit - budget.left - free);
            }
        }
        budget.tokens++;
        budget.characters += length;
        List<MExpression> uncut = new ArrayList<MExpression>();
        uncut.add(new MExpression(token.string, new MCandidate(token.string, token.index)));
        return uncut;
    }

    /** Counts work within a token. */
    void spend(long units) {
        if (inToken && (left -= units) < 0) {
            throw EXCEEDED;
        }
    }

    /** The numbers of a head. They are cached, because those of a token's heads are needed many times. */
    Head head(MCandidate candidate) {
        if (!inToken) {
            return new Head(candidate);
        }
        Head head = heads.get(candidate);
        if (head == null) {
            heads.put(candidate, head = new Head(candidate));
        }
        return head;
    }

    /** Whether two lists may be joined. Outside a token, a join that is too large is skipped. */
    boolean allows(MExpression head, MExpression tail) {
        long pairs = (long) head.size() * tail.size();
        spend(pairs + 1 + (head.exp.length() + tail.exp.length()) / 8);
        if (inToken || pairs <= Math.max(JOIN, tail.size())) {
            return true;
        }
        tokens++;
        characters += tail.exp.length();
        return false;
    }

    /** Stops a token if its list of candidates has this size. */
    void hold(int candidates, int most) {
        if (inToken && candidates > most) {
            throw EXCEEDED;
        }
    }
}
