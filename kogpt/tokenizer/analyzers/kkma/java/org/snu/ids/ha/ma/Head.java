package org.snu.ids.ha.ma;

import java.util.ArrayList;
import org.snu.ids.ha.constants.POSTag;

/** A candidate that tails are joined to: its score up to the last morpheme, which a tail may change. */
final class Head {
    private static final int LONGEST = 120; // Kkma counts morphemes in a byte

    final MCandidate candidate;
    private final int size;
    private final Morpheme last;
    private final Score before = new Score();
    private final int surface; // of the last part between spaces
    private final boolean plain;
    private final int slot;
    private final int tag;
    private final float tagging;
    private final float transition;
    private final Score score = new Score();

    Head(MCandidate candidate) {
        this.candidate = candidate;
        CachedCandidate.fill(candidate);
        size = candidate.size();
        last = candidate.get(size - 1);
        ArrayList<String> parts = candidate.expList;
        int part = 0;
        for (int i = 0; i < size - 1; i++) {
            Morpheme morpheme = candidate.get(i);
            String string = morpheme.string;
            if (morpheme instanceof MorphemeSpace) {
                before.space(part < parts.size() ? parts.get(part).length() : 0);
                part++;
                continue;
            }
            long number = morpheme.getTagNum();
            int slot = Tables.slot(string);
            int tag = Tables.tag(number);
            before.hash(Hashes.morpheme(string, morpheme.infoEnc), Hashes.morphemePower(string, morpheme.infoEnc));
            before.add(slot, tag, Tables.tagging(slot, tag), Score.isLight(string), Score.isSuffix(number));
            before.see(Score.kind(number), string.length());
        }
        plain = part == parts.size() - 1 && !(last instanceof MorphemeSpace);
        surface = parts.get(parts.size() - 1).length();
        slot = Tables.slot(last.string);
        tag = Tables.tag(last.getTagNum());
        tagging = Tables.tagging(slot, tag);
        transition = before.first ? 0f : before.transition(slot, tag, Score.isLight(last.string));
    }

    /** The result of MCandidate.derive for this head and a tail. Valid until the next call. */
    Score score(Tail tail, boolean joined) {
        if (!plain || !tail.plain || size + tail.size > LONGEST) {
            return built(candidate.derive(tail.candidate));
        }
        score.set(before);
        boolean merged = joined && merges(tail.candidate.firstMorp);
        long number = addLast(tail.candidate, joined, merged);
        if (!joined) {
            score.space(surface);
        }
        addTail(tail, merged ? 1 : 0, joined ? surface : 0);
        int total = size + tail.size + (joined ? 0 : 1) - (merged ? 1 : 0);
        guess(tail, number, merged, total);
        MCandidate appended = tail.candidate;
        char left = candidate.getLastSyllable();
        float spacing = Tables.spacing(left, appended.getFirstSyllable(), !joined);
        score.lnpr = candidate.lnprOfSpacing + appended.lnprOfSpacing + spacing + score.lnpr;
        int hash = Hashes.append(score.hash, '!', candidate.atlEnc);
        hash = Hashes.append(hash, '!', appended.hclEnc);
        hash = Hashes.append(hash, '!', candidate.cclEnc);
        score.hash = Hashes.append(hash, '!', candidate.eclEnc);
        return score;
    }

    private Score built(MCandidate derived) {
        score.lnpr = derived.getLnpr();
        score.hash = derived.hashCode;
        score.real = derived.realDicLen;
        score.candidate = derived.candDicLen;
        return score;
    }

    /** Two endings become one morpheme, and so does a word with a suffix that makes it an adverb. */
    private boolean merges(Morpheme first) {
        return candidate.lastMorp.isTagOf(POSTag.EM) && first.isTagOf(POSTag.EM) || first.isTagOf(POSTag.XSM);
    }

    /** Adds the last morpheme as changed by the tail, and returns its tag. */
    private long addLast(MCandidate tail, boolean joined, boolean merged) {
        long info = joined ? last.infoEnc & (Long.MIN_VALUE | tail.atlEnc) : last.infoEnc;
        if (info == last.infoEnc && !merged) {
            score.hash(Hashes.morpheme(last.string, info), Hashes.morphemePower(last.string, info));
            score.lnpr += tagging;
            if (!score.first) {
                score.lnpr += transition;
            }
            score.step(tag, Score.isSuffix(last.getTagNum()));
            score.see(Score.kind(last.getTagNum()), last.string.length());
            return last.getTagNum();
        }
        Morpheme changed = last.copy();
        changed.infoEnc = info;
        if (merged) {
            changed.append(tail.firstMorp);
        }
        String string = changed.string;
        long number = changed.getTagNum();
        int place = Tables.slot(string);
        int newTag = Tables.tag(number);
        score.hash(Hashes.morpheme(string, changed.infoEnc), Hashes.morphemePower(string, changed.infoEnc));
        score.add(place, newTag, Tables.tagging(place, newTag), Score.isLight(string), Score.isSuffix(number));
        score.see(Score.kind(number), string.length());
        return number;
    }

    private void addTail(Tail tail, int from, int surfaceBefore) {
        int part = 0;
        int surface = surfaceBefore + tail.surface[0];
        boolean linked = false; // the transition into the first morpheme depends on the head
        for (int i = from; i < tail.size; i++) {
            if (tail.kind[i] == Score.SPACE) {
                score.space(surface);
                surface = tail.surface[++part];
                continue;
            }
            score.hash(tail.hash[i], tail.power[i]);
            if (linked) {
                score.lnpr += tail.tagging[i];
                score.lnpr += tail.transition[i];
                score.step(tail.tag[i], tail.suffix[i]);
            } else {
                score.add(tail.slot[i], tail.tag[i], tail.tagging[i], tail.light[i], tail.suffix[i]);
                linked = true;
            }
            score.see(tail.kind[i], tail.length[i]);
        }
        score.end(surface);
    }

    private void guess(Tail tail, long number, boolean merged, int total) {
        if (total != 2) {
            return;
        }
        long first = size == 1 ? number : candidate.get(0).getTagNum();
        boolean ownLast = merged && tail.size == 1;
        long end = ownLast ? number : tail.candidate.get(tail.size - 1).getTagNum();
        if (first == POSTag.UN && (end & POSTag.J) > 0) {
            score.guess();
        }
    }
}
